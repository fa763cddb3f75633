"""When the keeper checks again, and when it does nothing."""

from __future__ import annotations

import contextvars
import sqlite3
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import CheckpointOutcome, SQLiteDatabase, SQLitePool, StatementTimeout
from sa_sqlite_pool.wal import keeper as keeper_module
from sa_sqlite_pool.wal import monitor as monitor_module
from sa_sqlite_pool.wal import one_checkpoint
from sa_sqlite_pool.wal.checkpointing import Checkpointing
from sa_sqlite_pool.wal.keeper import WalKeeper
from sa_sqlite_pool.wal.monitor import WalMonitor
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer
from tests.helpers import SleepingFunction, driver, turn_of, until, until_waiting

from .logs import KIB, SMALL, create_blobs, keeper_of, log_size, write


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(path, wal=SMALL) as database:
        await create_blobs(database.writer_engine)
        yield database


@pytest.fixture
def keeper(db: SQLiteDatabase, path: Path) -> WalKeeper:
    return keeper_of(path)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two commits of a slow machine counts as quiet, and no timer fires."""
    monkeypatch.setattr(keeper_module, "QUIET_SECONDS", 60.0)


async def arm(db: SQLiteDatabase, keeper: WalKeeper) -> float:
    """Exceed the soft limit; return when the timer is due."""
    await write(db.writer_engine, 80)
    assert keeper._timer_at is not None
    return keeper._timer_at


@pytest.mark.usefixtures("busy")
async def test_one_timer_for_many_commits(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every commit restarts it."""
    armed: list[float] = []
    original = WalKeeper._look_again

    def look_again(self: WalKeeper, seconds: float) -> None:
        armed.append(seconds)
        original(self, seconds)

    monkeypatch.setattr(WalKeeper, "_look_again", look_again)
    await write(db.writer_engine, 70)
    for _ in range(10):
        await write(db.writer_engine, 1)
    assert armed == [60.0]


@pytest.mark.usefixtures("busy")
async def test_a_timer_of_a_loop_that_is_gone_is_not_waited_for(
    db: SQLiteDatabase, keeper: WalKeeper
) -> None:
    """A commit starts another one when it is a second late."""
    await arm(db, keeper)
    keeper._timer_at = 1.0
    await write(db.writer_engine, 1)
    assert keeper._timer_at is not None
    assert keeper._timer_at > 1.0


@pytest.mark.usefixtures("busy")
async def test_a_timer_whose_time_has_passed_over(db: SQLiteDatabase, keeper: WalKeeper) -> None:
    """After ``stop()``, or when another was started, it does nothing."""
    armed_for = await arm(db, keeper)
    await keeper.stop()
    keeper.monitor.committed_at = float("-inf")
    keeper.look_in_quiet(armed_for)
    assert keeper._task is None
    assert keeper._timer_at is None


@pytest.mark.usefixtures("busy")
async def test_a_moment_after_a_commit_is_not_quiet(db: SQLiteDatabase, keeper: WalKeeper) -> None:
    """Nor is a moment at which a task holds the turn; the keeper checks again later."""
    armed_for = await arm(db, keeper)
    keeper.look_in_quiet(armed_for)
    assert keeper._task is None
    assert keeper._timer_at is not None
    assert keeper._timer_at != armed_for
    async with db.writer_engine.connect():
        keeper.monitor.committed_at = float("-inf")
        armed_for = keeper._timer_at
        keeper.look_in_quiet(armed_for)
        assert keeper._task is None
        assert keeper._timer_at != armed_for
    keeper.look_in_quiet(keeper._timer_at)
    assert keeper._task is not None


ERRORS = [sqlite3.OperationalError("disk I/O error"), MemoryError(), RuntimeError("no thread")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_after_a_failure_it_rests(
    error: Exception,
    db: SQLiteDatabase,
    path: Path,
    keeper: WalKeeper,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Commits continue without retrying it each time, and one warning is logged."""
    tries: list[object] = []

    def fail(*numbers: object) -> Any:
        tries.append(numbers)
        raise error

    keeper._pause.seconds = 10.0  # as after some failures
    with monkeypatch.context() as failing:
        failing.setattr(one_checkpoint, "_numbers", fail)
        await write(db.writer_engine, 150)
        await until(lambda: tries and keeper._task is None)
        for _ in range(10):
            await write(db.writer_engine, 1)
        assert len(tries) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    reason = str(error) or "MemoryError"
    assert f"failed ({reason}); no committed data is lost" in caplog.text
    keeper._rest_until, keeper._timer_at = 0.0, None
    await write(db.writer_engine, 1)
    await until(lambda: log_size(path) < 64 * KIB)


async def test_pauses_grow_and_end(db: SQLiteDatabase, path: Path, keeper: WalKeeper) -> None:
    """They grow while there is an obstacle; a success resets them."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM blobs").fetchone()
    await write(db.writer_engine, 80)
    await until(lambda: keeper._pause.seconds >= 0.4)
    assert keeper.monitor.situation().log.used > 64 * KIB
    other.close()
    await until(lambda: log_size(path) < 64 * KIB and keeper._task is None)
    assert keeper._pause.seconds == 0.1


async def test_the_task_inherits_nothing(
    db: SQLiteDatabase, keeper: WalKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not inherit the context of the task that committed."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []
    original = Checkpointing.tidy

    async def tidy(self: Checkpointing) -> Any:
        seen.append(variable.get())
        return await original(self)

    monkeypatch.setattr(Checkpointing, "tidy", tidy)
    variable.set("something")
    await write(db.writer_engine, 80)
    await until(lambda: seen)
    assert seen == ["nothing"]


async def test_a_log_that_has_begun_anew_counts_from_its_beginning(
    db: SQLiteDatabase, keeper: WalKeeper
) -> None:
    """Progress on the previous log does not count for the new one."""
    await write(db.writer_engine, 40)
    done = await db.checkpoint()
    await write(db.writer_engine, 1)  # SQLite restarts the log
    statistics = db.statistics().wal
    assert statistics is not None
    assert 0 < statistics.frames < done.frames
    assert statistics.checkpointed == 0
    keeper.monitor.checked = keeper.monitor.checked._replace(
        frames=1000, frame_size=4120, salts=done.salts
    )
    assert keeper.monitor.situation().checked_at == 0


async def test_many_commits_in_one_turn(db: SQLiteDatabase, path: Path) -> None:
    """The keeper never gets a turn; the commits do the work themselves, though not each of them."""
    keeper, largest = keeper_of(path), 0
    async with db.writer_engine.connect() as connection:
        for _ in range(200):
            await connection.execute(text("INSERT INTO blobs (data) VALUES (zeroblob(20000))"))
            await connection.commit()
            largest = max(largest, log_size(path))
        assert keeper.checkpointing.last is None
    assert 512 * KIB < largest < 600 * KIB  # even while the keeper holds its own snapshot


async def test_raw_connections_are_looked_after(path: Path, make_engine: Any) -> None:
    """Data written outside the pool counts when the connection is returned."""
    engine = make_engine(SQLitePool, wal=SMALL)
    await create_blobs(engine)
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.execute("INSERT INTO blobs (data) VALUES (zeroblob(100000))")
        await raw.commit()
        assert keeper_of(path)._timer_at is None
    assert keeper_of(path)._timer_at is not None


async def test_a_database_that_is_gone(
    path: Path, make_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no log to keep, and nothing to report."""
    engine = make_engine(SQLitePool, wal=SMALL)
    await create_blobs(engine)
    await write(engine, 80)
    keeper = keeper_of(path)
    await engine.dispose()
    path.unlink()
    keeper._timer_at = None
    keeper._start(idle=True)
    await until(lambda: keeper._task is None)
    assert keeper._timer_at is None
    assert not path.exists()
    assert caplog.records == []


async def test_a_fork_in_the_middle_is_no_failure(
    db: SQLiteDatabase,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The keeper finds its connections closed, and retries."""
    original, forks = Checkpointing.tidy, [1]

    async def tidy(self: Checkpointing) -> Any:
        if forks:
            forks.pop()
            self.prepare_for_fork()
        return await original(self)

    monkeypatch.setattr(Checkpointing, "tidy", tidy)
    await write(db.writer_engine, 80)
    await until(lambda: log_size(path) < 64 * KIB)
    assert forks == []
    assert caplog.records == []


async def test_a_turn_that_does_not_come(
    db: SQLiteDatabase, keeper: WalKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It checks again later."""
    monkeypatch.setattr(keeper_module, "_TURN_SECONDS", 0.0)
    monkeypatch.setattr(WalKeeper, "attend", lambda self: None)
    await write(db.writer_engine, 200)
    assert keeper._timer_at is None
    async with db.writer_engine.connect():
        keeper._start(idle=False)
        await until(lambda: keeper._task is None)
    assert keeper._timer_at is not None


async def test_stop_waits_for_no_turn(db: SQLiteDatabase, path: Path, keeper: WalKeeper) -> None:
    """A wait of the keeper does not delay it."""
    turn = turn_of(path)
    async with db.writer_engine.connect() as connection:
        await connection.execute(text("INSERT INTO blobs (data) VALUES (zeroblob(200000))"))
        await connection.commit()
        if keeper._task is None:
            keeper._start(idle=False)
        await until_waiting(1, turn)
        await keeper.stop()
        assert turn.waiting == 0
        assert keeper._task is None


@pytest.mark.usefixtures("busy")
async def test_a_log_that_cannot_be_moved_is_not_tried_after_every_commit(
    db: SQLiteDatabase, path: Path, keeper: WalKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried only when half the soft limit has been written since, however fast."""
    monkeypatch.setattr(monitor_module, "_MEASURE_SECONDS", 0.0)
    moves: list[int] = []
    original = Checkpointing.move_gently

    async def move(self: Checkpointing, *seconds: float) -> Any:
        moves.append(log_size(path))
        return await original(self, *seconds)

    monkeypatch.setattr(Checkpointing, "move_gently", move)
    async with db.read(long=True) as session:
        await session.execute(text("SELECT count(*) FROM blobs"))
        await write(db.writer_engine, 120)
        while log_size(path) < 400 * KIB:
            await write(db.writer_engine, 1)
            await until(lambda: keeper._task is None)
    assert 3 <= len(moves) <= 9
    assert all(later - earlier >= 32 * KIB for earlier, later in pairwise(moves))


@pytest.mark.needs_thread
async def test_a_read_that_is_left_to_itself_is_over_when_its_thread_is_back(
    path: Path, make_engine: Any
) -> None:
    """The connection stays usable, and no gap waits for a reader that has gone."""
    sleeping = SleepingFunction()
    engine = make_engine(SQLitePool, wal=SMALL, on_connect=sleeping.on_connect)
    await create_blobs(engine)
    async with engine.connect() as connection:
        with pytest.raises(StatementTimeout):
            await connection.execute(
                text("SELECT sleep()"), execution_options={"statement_timeout": 0.5}
            )
        assert len(keeper_of(path).snapshots) == 1
        sleeping.leave.set()
        raw = await driver(connection)
        await until(lambda: raw.worker.at_rest)
        await connection.rollback()
        assert len(keeper_of(path).snapshots) == 0


async def test_the_first_of_two_turns_is_not_the_last_word(
    db: SQLiteDatabase, keeper: WalKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held back on purpose, which statistics do not report."""
    results: list[CheckpointOutcome] = []
    shown: list[object] = []
    original = Checkpointer.end_snapshot_and_sync

    def end_snapshot_and_sync(self: Checkpointer) -> Any:
        statistics = db.statistics().wal
        assert statistics is not None
        shown.append(statistics.last_checkpoint)
        return original(self)

    monkeypatch.setattr(Checkpointer, "end_snapshot_and_sync", end_snapshot_and_sync)
    async with keeper.checkpointing.connected():
        await write(db.writer_engine, 10)
        done = await keeper.checkpointing.move_gently(1.0, 1.0)
        results.append(done.outcome)
    assert shown == [None]
    assert results == [CheckpointOutcome.MOVED_ALL]
    assert keeper.checkpointing.last == done


async def test_autocommit_is_looked_after(db: SQLiteDatabase, keeper: WalKeeper) -> None:
    """Each statement is a commit."""
    autocommit = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text("INSERT INTO blobs (data) VALUES (zeroblob(100000))"))
        assert keeper._timer_at is not None


async def test_a_commit_that_is_done_never_fails(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds whatever error occurs when the log is examined afterwards."""

    def broken(self: WalMonitor) -> int:
        raise RuntimeError("nobody has thought of this")

    with monkeypatch.context() as breaking:
        breaking.setattr(WalMonitor, "size", broken)
        await write(db.writer_engine, 1)
    assert "nobody has thought of this" in caplog.text
    async with db.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM blobs")) == 1


async def test_a_task_of_a_loop_that_died_takes_nothing_from_its_successor(
    keeper: WalKeeper,
) -> None:
    """The garbage collector may close its coroutine at any time, even while another is working."""
    line = keeper.checkpointing._one_at_a_time
    permit = line.acquire_nowait()
    assert permit is not None
    died = keeper._work(idle=True)
    died.send(None)  # it waits in line
    keeper._start(idle=True)
    task = keeper._task
    died.close()
    assert keeper._task is task is not None
    line.release(permit)
    await until(lambda: keeper._task is None)
