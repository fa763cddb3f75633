"""What is seen of the log, and how often."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase, WalSettings
from sa_sqlite_pool.driver.log_file import LogSize, measure
from sa_sqlite_pool.wal import keeper, lookout

from .logs import SMALL, create_blobs, write


async def test_a_large_log_is_not_measured_after_every_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor between them: no pause of a slow machine is quiet."""
    monkeypatch.setattr(keeper, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(lookout, "_MEASURE_SECONDS", 10.0)
    measured: list[str] = []

    def note(log: str) -> LogSize:
        measured.append(log)
        return measure(log)

    monkeypatch.setattr(lookout, "measure", note)
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
    """Where there is a log below four times its soft limit, and nobody has moved it."""
    monkeypatch.setattr(lookout, "_RECENT_NS", 0)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is not None
        look = db._keeper.lookout
        look.settings = wal
        look.committed(size)
        assert look.is_quiet() is quiet


async def test_each_commit_is_asked_about_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one after it may be in a thread, and move the log."""
    monkeypatch.setattr(lookout, "_RECENT_NS", 0)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is not None
        look = db._keeper.lookout
        look.committed(1)
        assert look.is_quiet()
        assert look.committed(1)
        assert not look.committed(1)


async def test_a_database_that_is_gone_is_not_quiet(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell what has happened to it."""
    monkeypatch.setattr(lookout, "_RECENT_NS", 0)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is not None
        look = db._keeper.lookout
        monkeypatch.setattr(look, "_database", f"{path}-gone")
        look.committed(1)
        assert not look.is_quiet()


@pytest.mark.parametrize(
    ("size", "wal", "done"),
    [
        (49, WalSettings(soft_limit=50, hard_limit=None), []),
        (50, WalSettings(soft_limit=50, hard_limit=None), ["considered"]),
        (199, WalSettings(soft_limit=50, hard_limit=None), ["considered"]),
        (200, WalSettings(soft_limit=50, hard_limit=None), ["considered", "hurried", "caught up"]),
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
    """The keeper from the soft limit on; from four times that, whoever commits."""
    async with SQLiteDatabase(path) as db:
        own, called = db._keeper, list[str]()
        assert own is not None
        monkeypatch.setattr(own.lookout, "settings", wal)
        monkeypatch.setattr(own.lookout, "size", lambda: size)
        monkeypatch.setattr(own, "_consider", lambda: called.append("considered"))
        monkeypatch.setattr(own.checkpointing, "hurry", lambda: called.append("hurried"))
        monkeypatch.setattr(own.lookout, "catch_up", lambda _: called.append("caught up"))
        monkeypatch.setattr(own.reports, "look_failed", lambda error: called.append(repr(error)))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            own.look(connection)
        assert called == done
