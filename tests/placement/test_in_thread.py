"""Statements that are long, unknown or may have to wait run in a thread."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from sa_sqlite_pool.system.clock import time
from sa_sqlite_pool.transactions import facts, placement
from tests.conftest import MakeEngine
from tests.helpers import create_items, driver, until
from tests.placement.work import COUNT, LEARNING, LONG, READ, WRITE, Run, Trace, learn, run
from tests.wal.others import OtherProcess


async def test_a_long_read(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that took long in the thread stays there."""
    monkeypatch.setattr(placement, "SHORT_SECONDS", facts.SHORT_SECONDS)
    await learn(engine, LONG)
    with trace.recorded() as runs:
        assert await run(engine, LONG) == [[50_000]]
    assert Run(LONG, False) in runs


@pytest.mark.parametrize(("rows", "shared"), [(1, False), (4, True)])
async def test_long_steps_have_a_thread_of_their_own(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, rows: int, shared: bool
) -> None:
    """A statement with long computations between rows does not delay other connections.

    Statements with many short steps perform better in the shared thread, one after the other.
    """
    await create_items(make_engine(WriterPool), 200)
    engine = make_engine(SQLitePool)
    async with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            await connection.execute(text("SELECT 1"))
    monkeypatch.setattr(placement, "SHORT_SECONDS", 0.5)
    monkeypatch.setattr(placement, "LONG_STEP_SECONDS", 0.2)
    monkeypatch.setattr(time, "thread_time", itertools.count().__next__)  # one second each
    threads: list[str] = []
    original = placement.PlacementPolicy.run_in_thread

    def noted(self: placement.PlacementPolicy, *arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return original(self, *arguments)

    monkeypatch.setattr(placement.PlacementPolicy, "run_in_thread", noted)
    for _ in range(3):
        await run(engine, f"SELECT id FROM items LIMIT {rows}")
    assert ["shared" in name for name in threads] == [True, shared, shared]


async def test_a_read_that_is_longer_than_it_was(engine: AsyncEngine, trace: Trace) -> None:
    """It is stopped after some thousand steps and repeated in the thread; the next runs there."""
    places = []
    async with engine.connect() as connection:
        for most in (10, 10, 50_000, 10):
            with trace.recorded() as runs:
                assert await connection.scalar(text(COUNT.format(":most")), {"most": most}) == most
            places.append([inline for sql, inline in runs if "RECURSIVE" in sql])
    assert places == [[False], [True], [True, False], [False]]


async def test_only_long_reads_are_stopped(
    make_engine: MakeEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite counts steps across runs: no short read is stopped, nor the end of its transaction."""
    monkeypatch.setattr(placement, "_STEPS", 40)  # instead of thousands
    await create_items(make_engine(WriterPool))
    reader = make_engine(ReaderPool, on_connect=trace.on_connect)
    with trace.recorded() as runs:
        for _ in range(300):
            await run(reader, READ)
    assert [inline for sql, inline in runs if sql == READ] == [False] + [True] * 299


async def test_the_end_of_a_read_is_not_stopped(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do checks made during the read count for the following statements."""
    monkeypatch.setattr(placement, "_STEPS", 40)
    monkeypatch.setattr(placement, "_ANSWERS", (1, 0))
    await create_items(make_engine(WriterPool))
    reader = make_engine(ReaderPool)
    for _ in range(300):
        assert await run(reader, READ) == [[0]]


async def test_a_stopped_read_leaves_its_transaction(engine: AsyncEngine, path: Path) -> None:
    """Earlier writes are still there, and are committed with the rest."""
    count = text(COUNT.format(":most"))
    await learn(engine, WRITE)
    async with engine.begin() as connection:
        await connection.execute(text(WRITE))
        for most in (10, 50_000):
            assert await connection.scalar(count, {"most": most}) == most
        assert (await driver(connection)).in_transaction
        await connection.execute(text(WRITE))
    assert await run(engine, READ) == [[LEARNING + 2]]


async def test_a_stopped_read_keeps_its_snapshot(make_engine: MakeEngine, trace: Trace) -> None:
    """This holds even for a transaction's first statement: later ones see the same state."""
    writer, reader = make_engine(WriterPool), make_engine(ReaderPool)
    await create_items(writer)
    count = text(COUNT.format(":most"))
    async with reader.connect() as connection:
        await connection.execute(count, {"most": 10})
        await connection.rollback()
        await connection.execute(text(READ))
        await connection.execute(count, {"most": 50_000})
        await run(writer, WRITE)
        assert await connection.scalar(text(READ)) == 0


async def test_a_write_is_never_stopped(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs once, however long it takes; the next runs are in the thread."""
    sql = f"INSERT INTO items (amount) SELECT ({COUNT.format(':most')})"
    for most in (10, 10, 10, 10, 50_000, 10):
        monkeypatch.setattr(placement, "_LONG_SECONDS", 60.0 if most == 10 else 0.001)
        async with engine.begin() as connection:
            await connection.execute(text(sql), {"most": most})
    places = [inline for text_, inline in trace.runs if text_.startswith("INSERT INTO items (amo")]
    assert places == [False, False, False, True, True, False]
    assert await run(engine, "SELECT amount FROM items WHERE id > 200") == [[10] * 4 + [50_000, 10]]


async def test_a_write_of_many_rows(engine: AsyncEngine, trace: Trace) -> None:
    """It runs in the thread even if it is fast, because its COMMIT has much to write."""
    many = "UPDATE items SET amount = 1"
    await learn(engine, many)
    with trace.recorded() as runs:
        await run(engine, many)
    assert Run(many, False) in runs


async def test_the_commit_of_many_writes(engine: AsyncEngine, trace: Trace) -> None:
    await learn(engine, WRITE)
    with trace.recorded() as runs:
        await run(engine, *[WRITE] * 51)
    assert runs[-1] == Run("COMMIT", False)
    with trace.recorded() as runs:
        await run(engine, *[WRITE] * 50)
    assert runs[-1] == Run("COMMIT", True)


async def test_many_parameters_and_streams(engine: AsyncEngine, trace: Trace) -> None:
    """Their duration is unknown."""
    update, select = "UPDATE items SET amount = 5 WHERE id = :id", "SELECT id FROM items"
    for _ in range(2 * LEARNING):
        async with engine.begin() as connection:
            await connection.execute(text(update), [{"id": 1}, {"id": 2}])
            async with connection.stream(text(select)) as result:
                assert len([row async for row in result]) == 200
    ran = [inline for sql, inline in trace.runs if sql.startswith((update[:30], select))]
    assert len(ran) == 3 * 2 * LEARNING
    assert not any(ran)


async def test_a_limit_that_is_too_short(engine: AsyncEngine, trace: Trace) -> None:
    """It could not be enforced on the loop."""
    await learn(engine, READ)
    async with engine.connect() as connection:
        for timeout, inline in ((0.049, False), (0.05, True)):
            with trace.recorded() as runs:
                statement = text(READ).execution_options(statement_timeout=timeout)
                await connection.execute(statement)
            assert Run(READ, inline) in runs


async def test_a_run_that_was_too_long(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used too much processor time, so the next runs are in the thread."""
    await learn(engine, READ)
    with monkeypatch.context() as patch:
        patch.setattr(placement, "_LONG_SECONDS", 0.0)
        await run(engine, READ)
    with trace.recorded() as runs:
        for _ in range(facts._FIRST_PENALTY + 1):
            await run(engine, READ)
    places = [inline for sql, inline in runs if sql == READ]
    assert places == [False] * facts._FIRST_PENALTY + [True]


@pytest.mark.parametrize("reads_disk", [True, False])
async def test_a_run_that_waited(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch, reads_disk: bool
) -> None:
    """After a wait for the disk, it runs in the thread; other waits do not count."""
    await learn(engine, READ)
    blocks = iter(range(1, 100))
    clock = iter(range(10_000))
    with monkeypatch.context() as patch:
        patch.setattr(placement, "disk_reads", lambda: next(blocks) if reads_disk else 0.0)
        patch.setattr(placement, "_LONG_SECONDS", 1.0)
        patch.setattr(time, "perf_counter", lambda: float(next(clock)))
        await run(engine, READ)
    with trace.recorded() as runs:
        await run(engine, READ)
    assert Run(READ, not reads_disk) in runs


async def test_a_lock_in_the_way(
    engine: AsyncEngine, path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite raises an error at once; the task then waits for the lock, and the loop continues."""
    await learn(engine, WRITE)
    with OtherProcess(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with trace.recorded() as runs:
            writing = asyncio.create_task(run(engine, WRITE))
            await until(lambda: len(trace.runs) > 3)
            assert not writing.done()
            other.execute("COMMIT")
            await writing
    assert Run(WRITE, True) in runs
    assert await run(engine, READ) == [[LEARNING + 1]]
