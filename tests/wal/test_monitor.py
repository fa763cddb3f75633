"""What is observed of the log, and how often."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, WalSettings
from sa_sqlite_pool.files.log_file import LogSize, measure
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.wal import keeper, monitor
from sa_sqlite_pool.wal.policy import Action
from tests.helpers import UPDATE_FIRST, create_items
from tests.turn.locks import is_free

from .logs import SMALL, create_blobs, write


async def test_a_large_log_is_not_measured_after_every_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it between commits, as no pause of a slow machine counts as quiet."""
    monkeypatch.setattr(keeper, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(monitor, "_MEASURE_SECONDS", 10.0)
    measured: list[str] = []

    def note(log: str) -> LogSize:
        measured.append(log)
        return measure(log)

    monkeypatch.setattr(monitor, "measure", note)
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create_blobs(db.writer_engine)
        await write(db.writer_engine, 70)
        for _ in range(5):
            await write(db.writer_engine, 1)
        assert measured == [f"{path}-wal"]


@pytest.mark.parametrize(
    ("size", "wal", "quiet"),
    [
        (199, WalSettings(soft_limit=50, hard_limit=None), True),
        (200, WalSettings(soft_limit=50, hard_limit=None), False),
        (None, WalSettings(soft_limit=50, hard_limit=None), False),
        (1, WalSettings(soft_limit=None), False),
    ],
    ids=["small", "large", "no-log", "not-kept"],
)
async def test_when_a_commit_only_appends(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int | None,
    wal: WalSettings,
    quiet: bool,
) -> None:
    """It does if the log is below four times its soft limit and has not been moved."""
    monkeypatch.setattr(monitor, "_RECENT_NS", 0)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is not None
        look = db._keeper.monitor
        look.settings = wal
        look.committed(size)
        assert look.is_quiet() is quiet


async def test_each_commit_is_asked_about_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit may be in a thread, and move the log."""
    monkeypatch.setattr(monitor, "_RECENT_NS", 0)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is not None
        look = db._keeper.monitor
        look.committed(1)
        assert look.is_quiet()
        assert look.known_quiet
        look.committed(1)
        assert not look.known_quiet


async def test_a_database_that_is_gone_is_not_quiet(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state cannot be determined."""
    monkeypatch.setattr(monitor, "_RECENT_NS", 0)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is not None
        look = db._keeper.monitor
        monkeypatch.setattr(look, "_database", f"{path}-gone")
        look.committed(1)
        assert not look.is_quiet()


@pytest.mark.parametrize(
    ("size", "wal", "done"),
    [
        (49, WalSettings(soft_limit=50, hard_limit=None), []),
        (50, WalSettings(soft_limit=50, hard_limit=None), ["considered"]),
        (199, WalSettings(soft_limit=50, hard_limit=None), ["considered"]),
        (
            200,
            WalSettings(soft_limit=50, hard_limit=None),
            ["considered", "hurried", "caught up", "considered", "hurried"],
        ),
        (200, WalSettings(soft_limit=None), []),
    ],
)
async def test_what_a_commit_sets_going(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    wal: WalSettings,
    done: list[str],
) -> None:
    """The keeper acts from the soft limit on; from four times that, the committing task does."""
    async with SQLiteDatabase(path) as db:
        own, called = db._keeper, list[str]()
        assert own is not None
        monkeypatch.setattr(own.monitor, "settings", wal)
        monkeypatch.setattr(own.monitor, "size", lambda: size)
        monkeypatch.setattr(own, "_note_what_is_due", lambda: called.append("considered"))
        monkeypatch.setattr(own.checkpointing, "hurry", lambda: called.append("hurried"))
        monkeypatch.setattr(own.monitor, "catch_up", lambda _: called.append("caught up"))
        monkeypatch.setattr(own.warnings, "look_failed", lambda error: called.append(repr(error)))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            own.relieve(connection)
            own.look(connection)
        assert called == done


async def test_what_is_due_is_not_put_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that moved the log itself leaves no work, but readers still have to be named."""
    async with SQLiteDatabase(path) as db:
        own = db._keeper
        assert own is not None
        found = iter([Action.MOVE, Action.WAIT, Action.WAIT])
        monkeypatch.setattr(own.monitor, "look", lambda: next(found))
        own._note_what_is_due()
        own._note_what_is_due()
        assert own.due is Action.MOVE
        own.due = None
        own._note_what_is_due()
        assert own.due is Action.WAIT


async def _session(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


async def _autocommit(db: SQLiteDatabase) -> None:
    engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)


async def _function(db: SQLiteDatabase) -> None:
    await db.run_write(lambda session: session.execute(UPDATE_FIRST).close())


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("write", [_session, _autocommit, _function])
async def test_the_turn_between_processes_after_a_commit(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[SQLiteDatabase], Awaitable[None]],
    large: bool,
) -> None:
    """It is kept only for a checkpoint that cannot wait.

    This process       | Others
    COMMIT             |
    checkpoint         | wait for the turn
    releases the turn  |
    examines the log   | may write
    """
    limit = 1 if large else 2**40
    async with SQLiteDatabase(
        path, placement="thread", wal=WalSettings(soft_limit=1, hard_limit=limit)
    ) as db:
        await create_items(db.writer_engine)
        own, moving, looking = db._keeper, list[bool](), list[bool]()
        assert own is not None
        monkeypatch.setattr(own, "_task_runs", lambda: True)  # and runs no checkpoint of its own
        monkeypatch.setattr(own.monitor, "catch_up", lambda _: moving.append(is_free(path)))
        monkeypatch.setattr(own.monitor, "committed", lambda _: looking.append(is_free(path)))
        await write(db)
        assert moving == ([False] if large else [])
        assert looking == [True]


async def test_after_work_on_the_raw_connection(
    path: Path, swap_in: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not in the turn, so its checkpoint is left to the keeper, which acquires one."""
    await create_items(swap_in)
    assert isinstance(swap_in.pool, FairPool)
    own, seen = swap_in.pool.keeper, list[str]()
    assert own is not None
    monkeypatch.setattr(own.monitor, "settings", WalSettings(soft_limit=1, hard_limit=1))
    monkeypatch.setattr(own.monitor, "catch_up", lambda _: seen.append("moved"))
    monkeypatch.setattr(own, "_note_what_is_due", lambda: seen.append("considered"))
    async with swap_in.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.execute("UPDATE items SET amount = 1")
    assert seen == ["considered"]
