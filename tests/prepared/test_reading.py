"""What a prepared read sends to SQLite, where it runs, and what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import MultipleResultsFound

from sa_sqlite_pool import ReadTimeout, SQLiteDatabase
from sa_sqlite_pool.execution import loop_budget
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.pools import at_once
from sa_sqlite_pool.prepared.read import PreparedRead
from sa_sqlite_pool.system.loop_state import of_running_loop
from tests.helpers import (
    SleepingFunction,
    create_items,
    until,
    until_waiting,
)
from tests.prepared.conftest import (
    AT_ONCE,
    BY_ID,
    BY_SQLALCHEMY,
    COUNT_TO,
    IN_LINE,
    Ways,
    learned,
    snapshots,
)


def let_in(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each lap of the loop admit so many tasks, however long they take; one is the minimum."""
    monkeypatch.setattr(loop_budget, "_WEIGHT", 0.0)
    seconds = 60.0 if tasks == 1 else loop_budget.LAP_SECONDS / tasks
    monkeypatch.setattr(of_running_loop(LoopBudget), "_mean", seconds)


async def test_which_way_it_goes(
    db: SQLiteDatabase, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy runs the first call, whose columns are kept; later ones run without a task."""
    let_in(1_000, monkeypatch)
    read = db.prepare(BY_ID)
    await read.one(id=1)
    assert ways.taken == BY_SQLALCHEMY
    for number in (1, 2, 3):
        coroutine = read.one(id=number)
        with pytest.raises(StopIteration) as done:  # it awaits nothing
            coroutine.send(None)
        assert done.value.value == (number, 0)
        assert ways.taken == AT_ONCE


async def test_a_statement_that_is_new_to_a_connection(path: Path, ways: Ways) -> None:
    """Each reader runs it once in a thread, before it is known to be short there."""
    async with SQLiteDatabase(path, readers=2) as db:
        await create_items(db.writer_engine)
        read = await learned(db)
        async with db.reader_engine.connect() as connection:
            await connection.execute(text("SELECT 1"))  # it holds the reader that knows it
            _ = ways.taken
            await read.one(id=1)
            assert ways.taken == IN_LINE
            await read.one(id=1)
            assert ways.taken == AT_ONCE


@pytest.mark.parametrize("placement", ["auto", "thread"])
async def test_what_sqlite_is_told(path: Path, placement: str) -> None:
    """SQLite receives the statement only: neither BEGIN nor ROLLBACK."""
    sent: list[str] = []

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(sent.append)

    options: dict[str, Any] = {"on_connect": on_connect, "placement": placement}
    async with SQLiteDatabase(path, readers=1, **options) as db:
        await create_items(db.writer_engine)
        read = await learned(db)
        sent.clear()
        await read.one(id=2)
        assert [" ".join(sql.split()) for sql in sent] == [
            "SELECT items.id, items.amount FROM items WHERE items.id = 2"
        ]


async def test_each_call_sees_what_was_committed(db: SQLiteDatabase, by_id: PreparedRead) -> None:
    """Each call has its own snapshot: not the previous call's, and without uncommitted changes."""
    async with db.writer_engine.connect() as connection:
        await connection.execute(text("UPDATE items SET amount = 7 WHERE id = 1"))
        assert (await by_id.one(id=1)).amount == 0
        await connection.commit()
        assert (await by_id.one(id=1)).amount == 7


@pytest.mark.parametrize(("method", "rows"), [("first", 1), ("scalar", 1), ("one_or_none", 2)])
async def test_no_more_rows_than_are_needed(path: Path, method: str, rows: int) -> None:
    """Rows that are not returned are not even computed."""
    computed: list[int] = []

    def noted(value: int) -> int:
        computed.append(value)
        return value

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.create_function("noted", 1, noted)

    async with SQLiteDatabase(path, readers=1, on_connect=on_connect) as db:
        await create_items(db.writer_engine, 50)
        read = db.prepare(text("SELECT noted(id) FROM items WHERE id >= :low"))
        await read.all(low=1)
        computed.clear()
        with pytest.raises(MultipleResultsFound) if rows > 1 else contextlib.nullcontext():
            await getattr(read, method)(low=1)
        assert len(computed) <= rows + 1  # sqlite3 is one row ahead


async def test_a_long_statement_leaves_the_loop_free(db: SQLiteDatabase, ways: Ways) -> None:
    """It runs in a thread, where a cancellation stops it."""
    read = db.prepare(COUNT_TO)
    for _ in range(3):
        assert await read.scalar(rows=10) == 10
    assert ways.taken[0] > 0
    task = asyncio.create_task(read.scalar(rows=10**12))
    await until(lambda: ways.taken == IN_LINE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await read.scalar(rows=5) == 5


# -- waiting ---------------------------------------------------------------------------------------


async def test_it_waits_for_a_reader_in_order(db: SQLiteDatabase, by_id: PreparedRead) -> None:
    """It is served after tasks that arrived before it, and before those that arrived later."""
    order: list[str] = []

    async def session(name: str) -> None:
        async with db.reader_engine.connect():
            order.append(name)

    async def prepared(name: str) -> None:
        await by_id.one(id=1)
        order.append(name)

    pool: Any = db.reader_engine.pool
    async with db.reader_engine.connect():
        tasks = []
        for number, work in enumerate([session, prepared, session, prepared]):
            tasks.append(asyncio.create_task(work(str(number))))
            await until_waiting(number + 1, pool)
    await asyncio.gather(*tasks)
    assert order == ["0", "1", "2", "3"]


async def test_it_waits_no_longer_than_read_timeout(path: Path, ways: Ways) -> None:
    """The error names the holder of the reader, and is raised after one wait."""
    async with SQLiteDatabase(path, readers=1, read_timeout=0.05) as db:
        await create_items(db.writer_engine)
        read = await learned(db)
        async with db.reader_engine.connect() as connection:
            await connection.execute(text("SELECT 'the holder'"))
            _ = ways.taken
            with pytest.raises(ReadTimeout, match=r"waited 0\.05 s.*SELECT 'the holder'"):
                await read.one(id=1)
            assert ways.taken == IN_LINE
        assert (await read.one(id=1)).id == 1


async def test_fifty_tasks_leave_the_loop_to_others(
    by_id: PreparedRead, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lap of the loop admits as many tasks as fit into its budget, here one."""
    let_in(1, monkeypatch)
    running, laps = True, 0

    async def others() -> None:
        nonlocal laps
        while running:
            laps += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    _ = ways.taken
    await asyncio.gather(*(by_id.one(id=1) for _ in range(50)))
    running = False
    await other
    assert ways.taken == (50, 0, 0)
    assert laps >= 49


async def test_in_threads_it_does_not_wait_for_the_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``placement="thread"``, none of it is work on the loop, which need not admit it."""

    def enter_nowait(_: LoopBudget) -> bool:
        raise AssertionError

    monkeypatch.setattr(LoopBudget, "enter_nowait", enter_nowait)
    async with SQLiteDatabase(path, readers=1, placement="thread") as db:
        await create_items(db.writer_engine)
        assert (await (await learned(db)).one(id=1)).id == 1


async def test_the_loop_learns_how_long_they_take(
    by_id: PreparedRead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lap therefore admits as many reads as fit into it."""
    clock = iter(range(100))
    monkeypatch.setattr(at_once, "perf_counter", lambda: next(clock))
    budget = of_running_loop(LoopBudget)
    before = budget.statistics().mean_seconds
    await by_id.one(id=1)
    assert budget.statistics().mean_seconds == pytest.approx(before + (1 - before) / 16)


async def test_it_waits_for_the_end_of_a_gap(path: Path, by_id: PreparedRead, ways: Ways) -> None:
    """No read begins in a gap, which belongs to a checkpoint alone."""
    _ = ways.taken
    with snapshots(path).gap(60):
        task = asyncio.create_task(by_id.one(id=1))
        await until(lambda: ways.taken == IN_LINE)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
    assert (await task).id == 1


@pytest.mark.usefixtures("placed")
async def test_in_a_thread_it_is_among_the_snapshots(path: Path) -> None:
    """A gap waits for it, and messages can name it."""
    sleeping = SleepingFunction()
    async with SQLiteDatabase(path, readers=1, on_connect=sleeping.on_connect) as db:
        sleeping.leave.set()
        read = db.prepare(text("SELECT sleep()"))
        assert await read.scalar() == 1
        sleeping.leave.clear()
        sleeping.inside.clear()
        task = asyncio.create_task(read.scalar(), name="sleeper")
        await until(sleeping.inside.is_set)
        (snapshot,) = snapshots(path)
        assert "sleeper" in snapshot.describe(0)
        assert "SELECT sleep()" in snapshot.describe(0)
        sleeping.leave.set()
        assert await task == 1
        assert not len(snapshots(path))
