"""The keeper of the log: when it works, and what it leaves alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import (
    CheckpointMode,
    CheckpointOutcome,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WalSettings,
    WriterPool,
    WriteTimeout,
)
from sa_sqlite_pool.files.log_file import measure
from sa_sqlite_pool.wal import keeper as keeper_module
from sa_sqlite_pool.wal import monitor, one_checkpoint
from tests.conftest import MakeEngine
from tests.dead_loops import bury, die, wait_for_ever
from tests.helpers import turn_of, until, until_waiting

from .logs import KIB, MIB, SMALL, count, create_blobs, keeper_of, log_size, write


@dataclass
class Door:
    writer: AsyncEngine
    reader: AsyncEngine


@pytest.fixture(params=["swap-in", "engines", "facade"])
async def door(
    request: pytest.FixtureRequest, path: Path, make_engine: MakeEngine
) -> AsyncIterator[Door]:
    """Yield each way to use the package, with a small log and the table ``blobs``."""
    if request.param == "facade":
        async with SQLiteDatabase(path, wal=SMALL) as db:
            await create_blobs(db.writer_engine)
            yield Door(db.writer_engine, db.reader_engine)
        return
    if request.param == "swap-in":
        writer = reader = make_engine(SQLitePool, wal=SMALL)
    else:
        writer = make_engine(WriterPool, wal=SMALL)
        reader = make_engine(ReaderPool)
    await create_blobs(writer)
    yield Door(writer, reader)


async def until_outcome(path: Path, outcome: CheckpointOutcome) -> None:
    checkpointing = keeper_of(path).checkpointing
    await until(lambda: checkpointing.last is not None and checkpointing.last.outcome is outcome)


async def test_a_quiet_moment_is_used(door: Door, path: Path) -> None:
    """Above the soft limit, the log is moved and truncated as soon as no task writes."""
    await write(door.writer, 100)
    assert log_size(path) > 100 * KIB
    await until_outcome(path, CheckpointOutcome.TRUNCATED)
    assert log_size(path) < 8 * KIB
    assert await count(door.reader) == 1


async def test_below_the_soft_limit_nothing_happens(door: Door, path: Path) -> None:
    """There is no task, no timer, and no checkpoint."""
    await write(door.writer, 20)
    keeper = keeper_of(path)
    assert keeper.due is None
    assert keeper._task is None
    assert keeper._timer_at is None
    assert keeper.checkpointing.last is None


@pytest.mark.parametrize("pool", [SQLitePool, WriterPool])
async def test_where_it_is_never_quiet_the_log_is_moved_in_a_turn_of_its_own(
    make_engine: MakeEngine, path: Path, pool: type
) -> None:
    """This starts at half the hard limit; SQLite then writes the log from its beginning."""
    engine = make_engine(pool, wal=replace(SMALL, hard_limit=16 * MIB))
    await create_blobs(engine)
    keeper = keeper_of(path)
    while keeper.monitor.measure().used < 8 * MIB:
        await write(engine, 100)
    while keeper.checkpointing.last is None:  # it is never quiet, and never at the limit
        await write(engine, 1)
    last = keeper.checkpointing.last
    assert last.mode is CheckpointMode.PASSIVE
    assert last.outcome is CheckpointOutcome.MOVED_ALL
    await write(engine, 1)
    assert log_size(path) >= 8 * MIB
    assert keeper.monitor.measure().used < MIB


async def test_commits_move_nothing(
    door: Door, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own checkpoints, inside a commit, run only from twice the hard limit on."""
    monkeypatch.setattr(keeper_module.WalKeeper, "attend", lambda self: None)
    await write(door.writer, 20)
    size = path.stat().st_size
    for _ in range(15):
        await write(door.writer, 20)
    assert path.stat().st_size == size
    assert 300 * KIB < log_size(path) < 500 * KIB
    for _ in range(10):
        await write(door.writer, 20)
    assert path.stat().st_size > size  # and then they do run


async def test_wal_autocheckpoint_of_the_application_stays(make_engine: MakeEngine) -> None:
    """An application that sets the PRAGMA has its reasons."""
    engine = make_engine(SQLitePool, pragmas={"wal_autocheckpoint": 7}, wal=SMALL)
    async with engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA wal_autocheckpoint")) == 7


async def test_without_a_soft_limit_sqlite_keeps_the_log(
    make_engine: MakeEngine, path: Path
) -> None:
    """``soft_limit=None`` disables the keeper."""
    engine = make_engine(SQLitePool, wal=WalSettings(soft_limit=None))
    async with engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA wal_autocheckpoint")) == 1000
    await create_blobs(engine)
    await write(engine, 4500)  # more than 1000 pages: moved within the commit
    assert path.stat().st_size > 4500 * KIB
    assert keeper_of(path).checkpointing.last is None


@pytest.mark.needs_thread
async def test_nothing_runs_on_the_event_loop(
    door: Door, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is measured and moved in threads."""
    threads = []

    def noting(function: Any) -> Any:
        def call(*args: Any, **kw: Any) -> Any:
            threads.append(threading.current_thread())
            return function(*args, **kw)

        return call

    monkeypatch.setattr(monitor, "measure", noting(measure))
    monkeypatch.setattr(one_checkpoint, "_checkpoint", noting(one_checkpoint._checkpoint))
    await write(door.writer, 150)
    await until_outcome(path, CheckpointOutcome.TRUNCATED)
    assert len(threads) >= 3
    assert threading.main_thread() not in threads


async def test_a_checkpoint_is_a_turn_in_line(door: Door, path: Path) -> None:
    """It overtakes no writer, and a task that waits too long is told that the keeper holds it."""
    turn = turn_of(path)
    await write(door.writer, 20)
    async with door.writer.connect() as first:
        await first.execute(text("INSERT INTO blobs (data) VALUES (zeroblob(200000))"))
        second = asyncio.create_task(write(door.writer, 1))
        await until_waiting(1, turn)
        await first.commit()
        await first.close()
        await second
        await until(lambda: turn.holder is not None)
        assert turn.holder is not None
        assert "WAL keeper of app.db" in turn.holder.describe_holder()
        assert "last SQL: PRAGMA wal_checkpoint" in turn.holder.describe_holder()
    await until_outcome(path, CheckpointOutcome.MOVED_ALL)


async def test_a_log_that_was_tidied_up_is_left_in_peace(door: Door, path: Path) -> None:
    """After its work, there is no task and no timer."""
    await write(door.writer, 100)
    await until_outcome(path, CheckpointOutcome.TRUNCATED)
    keeper = keeper_of(path)
    await until(lambda: keeper._task is None)
    assert keeper._timer_at is None


async def test_the_keeper_lets_go_of_its_connections_before_a_fork(door: Door, path: Path) -> None:
    """Otherwise a child could not open the file."""
    await write(door.writer, 20)
    checkpointing = keeper_of(path).checkpointing
    async with checkpointing.connected():
        opened = checkpointing._checkpointer
        assert opened is not None
        checkpointing.prepare_for_fork()
        assert [worker.closed for worker in opened._workers] == [True, True]


async def test_two_keepers_of_one_file_are_one(make_engine: MakeEngine, path: Path) -> None:
    """All engines on a file share it; the settings are those of the writing engine opened last."""
    first = make_engine(SQLitePool, wal=SMALL)
    second = make_engine(WriterPool, wal=replace(SMALL, soft_limit=32 * KIB))
    reader = make_engine(ReaderPool, wal=replace(SMALL, soft_limit=16 * KIB))
    await create_blobs(first)
    await write(second, 1)
    await count(reader)
    pools: list[Any] = [first.pool, second.pool, reader.pool]
    assert {pool.keeper for pool in pools} == {keeper_of(path)}
    assert keeper_of(path).settings.soft_limit == 32 * KIB


async def test_another_journal_mode_has_no_log(make_engine: MakeEngine) -> None:
    """There is no log to keep, and nothing to wait for."""
    engine = make_engine(SQLitePool, pragmas={"journal_mode": "TRUNCATE"})
    pool: Any = engine.pool
    assert pool.keeper is None
    await create_blobs(engine)
    assert await count(engine) == 0


def test_a_loop_that_ends_in_the_middle(path: Path) -> None:
    """``asyncio.run`` cancels the keeper; the next loop restarts it, and no turn stays acquired."""

    async def run(kib: int, *, wait: bool) -> int:
        async with SQLiteDatabase(path, wal=SMALL) as db:
            if kib:
                await create_blobs(db.writer_engine)
                await write(db.writer_engine, kib)
            keeper = keeper_of(path)
            if wait:
                await until(lambda: log_size(path) < 64 * KIB)
            else:
                await until(lambda: keeper._task is not None)
            return await count(db.reader_engine)

    assert asyncio.run(run(300, wait=False)) == 1
    assert turn_of(path).holder is None
    assert asyncio.run(run(0, wait=True)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_with_the_keeper_at_work(path: Path) -> None:
    """It is not cancelled; the next loop takes over, and the turn is free."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, wal=SMALL)

    async def begin() -> None:
        await create_blobs(engine)
        await write(engine, 300)
        await until(lambda: turn_of(path).holder is not None)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()

    async def go_on() -> None:
        await write(engine, 1)
        await write(engine, 100)
        await until(lambda: log_size(path) < 64 * KIB)
        await engine.dispose()

    asyncio.run(go_on())


def test_a_checkpoint_whose_loop_has_died_ends_no_other(path: Path) -> None:
    """The garbage collector closes it at any time."""
    url, wal = f"sqlite+aiosqlite:///{path}", WalSettings(soft_limit=None)
    engine = create_async_engine(url, poolclass=SQLitePool, wal=wal)

    async def begin() -> None:
        await create_blobs(engine)
        async with keeper_of(path).checkpointing.connected():
            await wait_for_ever()

    task = die(begin)

    async def go_on() -> None:
        checkpointing = keeper_of(path).checkpointing
        async with checkpointing.connected():
            bury(task)
            done = await checkpointing.move(5.0, 5.0)
        assert done.outcome is CheckpointOutcome.MOVED_ALL
        await engine.dispose()

    asyncio.run(go_on())


async def test_what_stands_in_the_turn_does_not_stop_readers(
    door: Door, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that holds the turn keeps only the keeper and other writers waiting."""
    monkeypatch.setattr(keeper_module, "_TURN_SECONDS", 0.0)
    await write(door.writer, 20)
    async with door.writer.connect() as holder:
        await holder.execute(text("INSERT INTO blobs (data) VALUES (zeroblob(300000))"))
        await holder.commit()
        await holder.execute(text("INSERT INTO blobs (data) VALUES (zeroblob(10))"))
        keeper = keeper_of(path)
        keeper._start(idle=False)
        await until(lambda: keeper._task is None)
        assert keeper.checkpointing.last is None
        assert await count(door.reader) == 2
        with pytest.raises(WriteTimeout):
            await asyncio.create_task(keeper.checkpoint(CheckpointMode.PASSIVE, 0.0))
        await holder.commit()
    await until_outcome(path, CheckpointOutcome.TRUNCATED)


async def test_statements_of_the_keeper_are_nobody_elses(door: Door, path: Path) -> None:
    """Pool and engine events of the application do not include its connections."""
    seen: list[str] = []
    for engine in {door.writer, door.reader}:
        event.listen(engine.sync_engine, "connect", lambda *_: seen.append("connect"))
        event.listen(
            engine.sync_engine,
            "before_cursor_execute",
            lambda conn, cursor, statement, *_: seen.append(statement),
        )
    await write(door.writer, 100)
    before = list(seen)
    await until_outcome(path, CheckpointOutcome.TRUNCATED)
    assert seen == before
