"""``db.checkpoint()``, ``db.statistics().wal``, and the files that a closed database leaves."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import (
    Checkpoint,
    CheckpointMode,
    CheckpointOutcome,
    ConfigurationError,
    DatabaseClosedError,
    SQLiteDatabase,
    TurnAlreadyHeldError,
    WalSettings,
    WriteTimeout,
)
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer
from tests.helpers import cancelled_after, files_beside, turn_of, until, until_waiting
from tests.wal.logs import KIB, create_blobs, keeper_of, log_size, write

COUNT = text("SELECT count(*) FROM blobs")
LARGE = WalSettings(reader_gap=0.05)


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Provide a facade whose keeper is idle; about a hundred frames are in the log."""
    async with SQLiteDatabase(path, wal=LARGE) as database:
        await create_blobs(database.writer_engine)
        await write(database.writer_engine, 500)
        yield database


@contextlib.contextmanager
def outside(path: Path, begin: str) -> Iterator[None]:
    """Hold another program's transaction open."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    connection.execute(begin)
    connection.execute("SELECT count(*) FROM blobs").fetchone()
    try:
        yield
    finally:
        connection.close()


async def test_passive_is_the_default(db: SQLiteDatabase, path: Path) -> None:
    """It moves the log's frames, leaves its file as it is, and delays no task."""
    size = log_size(path)
    done = await db.checkpoint()
    assert (done.mode, done.outcome) == (CheckpointMode.PASSIVE, CheckpointOutcome.MOVED_ALL)
    assert done.frames == done.moved > 100
    assert not done.busy
    assert done.held_back_by is None
    assert log_size(path) == size
    assert path.stat().st_size > 500 * KIB


@pytest.mark.parametrize("mode", ["full", "restart"])
async def test_full_and_restart(db: SQLiteDatabase, mode: str) -> None:
    """All frames are moved."""
    done = await db.checkpoint(mode)
    assert done.mode is CheckpointMode(mode)
    assert done.outcome is CheckpointOutcome.MOVED_ALL


async def test_truncate(db: SQLiteDatabase, path: Path) -> None:
    """The file is empty, except for the frame that restarts it if SQLite has the reset bug."""
    done = await db.checkpoint("truncate")
    assert done.outcome is CheckpointOutcome.TRUNCATED
    assert log_size(path) < 5 * KIB
    async with db.read() as session:
        assert await session.scalar(COUNT) == 1


async def test_truncate_waits_for_readers_and_they_for_it(db: SQLiteDatabase, path: Path) -> None:
    """It waits for the length of the gap, and then names the reader in the way."""
    async with db.read() as session:
        await session.scalar(COUNT)
        await write(db.writer_engine, 1)
        done = await db.checkpoint("truncate")
    assert done.outcome is CheckpointOutcome.HELD_BACK
    assert 0 < done.moved < done.frames
    assert done.held_back_by is not None
    assert "now at test_checkpoint.py:" in done.held_back_by
    assert "last SQL: SELECT count(*) FROM blobs" in done.held_back_by
    assert (await db.checkpoint("truncate")).outcome is CheckpointOutcome.TRUNCATED


async def test_an_outside_reader(db: SQLiteDatabase, path: Path) -> None:
    """It is not waited for, and is reported as outside."""
    with outside(path, "BEGIN"):
        await write(db.writer_engine, 1)
        for mode in ("passive", "truncate"):
            done = await db.checkpoint(mode)
            assert done.outcome is CheckpointOutcome.HELD_BACK
            assert done.held_back_by is not None
            assert "an unknown reader" in done.held_back_by
            assert db.statistics().wal.held_back_by == done.held_back_by  # type: ignore[union-attr]


async def test_an_outside_writer(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is waited for, but no longer than ``timeout``."""
    tries: list[CheckpointMode] = []
    original = Checkpointer.run

    def run(self: Checkpointer, mode: CheckpointMode) -> Any:
        tries.append(mode)
        return original(self, mode)

    monkeypatch.setattr(Checkpointer, "run", run)
    with outside(path, "BEGIN IMMEDIATE"):
        done = await db.checkpoint(timeout=0.0)
        assert done.outcome is CheckpointOutcome.BUSY
        assert done.held_back_by is not None
        assert "another connection" in done.held_back_by
        waiting = asyncio.create_task(db.checkpoint())
        await until(lambda: len(tries) == 5)
    assert (await waiting).outcome is CheckpointOutcome.MOVED_ALL


async def test_it_stands_in_line_with_writers(db: SQLiteDatabase) -> None:
    """It is refused to a task that would wait for itself."""
    async with db.write() as session:
        await session.execute(COUNT)
        with pytest.raises(TurnAlreadyHeldError):
            await db.checkpoint()
        with pytest.raises(WriteTimeout, match="last SQL: SELECT count"):
            await asyncio.create_task(db.checkpoint(timeout=0.0))


async def test_a_long_line_of_writers(db: SQLiteDatabase, path: Path) -> None:
    """If the turn does not come while readers wait, the turn is waited for first."""
    turn = turn_of(path)
    async with db.writer_engine.connect():
        waiting = asyncio.create_task(db.checkpoint("truncate"))
        await until_waiting(1, turn)
    # Its first turn has ended; it opens a gap and waits in line behind this one.
    async with db.writer_engine.connect():
        await until_waiting(1, turn)
        await until(lambda: keeper_of(path).snapshots.in_gap)
        await until(lambda: not keeper_of(path).snapshots.in_gap)
        async with db.read() as session:
            await session.scalar(COUNT)  # nothing waits for readers meanwhile
        await until_waiting(1, turn)
    assert (await waiting).outcome is CheckpointOutcome.TRUNCATED


async def test_many_at_once(db: SQLiteDatabase) -> None:
    """Concurrent calls run one after the other."""
    modes = ["passive", "full", "restart", "truncate"] * 3
    done: list[Checkpoint] = await asyncio.gather(*(db.checkpoint(mode) for mode in modes))
    assert {each.outcome for each in done} <= {
        CheckpointOutcome.MOVED_ALL,
        CheckpointOutcome.TRUNCATED,
    }


@pytest.mark.parametrize("times", [1, 1000])
async def test_a_cancelled_one_leaves_nothing(db: SQLiteDatabase, path: Path, times: int) -> None:
    """At every await, once or repeatedly, it leaves no turn, gap or connection held."""
    checkpointing = keeper_of(path).checkpointing
    for steps in range(40):
        await cancelled_after(db.checkpoint("truncate"), steps, times)
        assert turn_of(path).holder is None
        assert not keeper_of(path).snapshots.in_gap
        assert checkpointing._checkpointer is None
        assert not checkpointing._one_at_a_time.permits
    await write(db.writer_engine, 1)
    assert (await db.checkpoint("truncate")).outcome is CheckpointOutcome.TRUNCATED


@pytest.mark.parametrize("mode", ["", "PASSIVE", None, 3])
async def test_an_unknown_mode(db: SQLiteDatabase, mode: str) -> None:
    """It is refused, and the error lists the modes."""
    with pytest.raises(ConfigurationError, match="'passive', 'full', 'restart', 'truncate'"):
        await db.checkpoint(mode)


async def test_where_there_is_no_log(path: Path) -> None:
    """Another journal mode is no error."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}) as db:
        assert (await db.checkpoint("truncate")).outcome is CheckpointOutcome.NOT_WAL
        assert db.statistics().wal is None


async def test_before_it_is_open_and_after(path: Path) -> None:
    """The calls are refused, as all others are."""
    db = SQLiteDatabase(path)
    with pytest.raises(DatabaseClosedError):
        await db.checkpoint()
    with pytest.raises(DatabaseClosedError):
        db.statistics()


async def test_statistics(db: SQLiteDatabase, path: Path) -> None:
    """They describe the current state of the log."""
    before = db.statistics().wal
    assert before is not None
    assert before.size == log_size(path)
    assert 100 < before.frames < 200
    assert (before.checkpointed, before.last_checkpoint, before.oldest_reader) == (0, None, None)
    assert (before.soft_limit, before.limit) == (16 * KIB * KIB, 64 * KIB * KIB)
    assert before.sqlite_version == sqlite3.sqlite_version
    assert before.outside_writers == ()
    done = await db.checkpoint()
    async with db.read() as session:
        await session.scalar(COUNT)
        after = db.statistics().wal
        assert after is not None
        assert after.checkpointed == after.frames == before.frames
        assert after.last_checkpoint == done
        assert after.oldest_reader is not None
        assert "last SQL: SELECT count(*) FROM blobs" in after.oldest_reader.who
        assert after.oldest_reader.seconds >= 0


class TestClose:
    async def test_nothing_is_left(self, db: SQLiteDatabase, path: Path) -> None:
        """The last connection moves the log into the database and removes it."""
        assert files_beside(path) == {"app.db", "app.db-wal", "app.db-shm"}
        await db.close()
        assert files_beside(path) == {"app.db"}

    async def test_nothing_is_left_when_the_keeper_is_at_work(self, path: Path) -> None:
        """The keeper is stopped first."""
        db = SQLiteDatabase(path, wal=WalSettings(64 * KIB, 256 * KIB))
        await db.open()
        await create_blobs(db.writer_engine)
        await write(db.writer_engine, 300)
        await until(lambda: keeper_of(path)._task is not None)
        await db.close()
        assert files_beside(path) == {"app.db"}

    async def test_others_know_of_this_process_to_the_end(
        self, db: SQLiteDatabase, path: Path
    ) -> None:
        """They know of it as long as there is a log, and no longer."""
        keeper = keeper_of(path)
        await keeper.stop()
        assert keeper.monitor.presence.inode is not None
        await db.close()
        assert keeper.monitor.presence.inode is None

    async def test_the_log_stays_while_others_use_it(self, db: SQLiteDatabase, path: Path) -> None:
        """SQLite itself keeps the log."""
        with outside(path, "BEGIN"):
            await db.close()
            assert files_beside(path) == {"app.db", "app.db-wal", "app.db-shm"}

    async def test_keep_wal(self, path: Path) -> None:
        """The log stays, with its content, for programs that copy it."""
        async with SQLiteDatabase(path, keep_wal=True) as db:
            await create_blobs(db.writer_engine)
            await write(db.writer_engine, 100)
            size = log_size(path)
        assert files_beside(path) == {"app.db", "app.db-wal", "app.db-shm"}
        assert log_size(path) == size > 100 * KIB
        async with SQLiteDatabase(path) as db, db.read() as session:
            assert await session.scalar(COUNT) == 1
        assert files_beside(path) == {"app.db"}
