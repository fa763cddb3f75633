"""What a prepared read sends to SQLite, where it runs, and what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, select, text
from sqlalchemy.exc import MultipleResultsFound, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from sa_sqlite_pool import DatabaseClosedError, ReadTimeout, SQLiteDatabase
from sa_sqlite_pool.database_file import database_file
from sa_sqlite_pool.execution import jobs
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.execution.replies import Reply, execute_at_once
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.pools import at_once
from sa_sqlite_pool.prepared.read import PreparedRead
from sa_sqlite_pool.system.loop_state import of_running_loop
from sa_sqlite_pool.turn.snapshots import Snapshots
from tests.cancelling import cancelled_at
from tests.helpers import (
    Item,
    SleepingFunction,
    create_items,
    driver,
    until,
    until_waiting,
)
from tests.prepared.conftest import AT_ONCE, BY_SQLALCHEMY, COUNT_TO, IN_LINE, Ways

BY_ID = select(Item.id, Item.amount).where(Item.id == bindparam("id"))


async def learned(db: SQLiteDatabase) -> PreparedRead:
    """A read that runs on the loop from now on."""
    read = db.prepare(BY_ID)
    for _ in range(3):
        await read.one(id=1)
    return read


@pytest.fixture
async def by_id(db: SQLiteDatabase) -> PreparedRead:
    return await learned(db)


def snapshots(path: Path) -> Snapshots:
    return database_file(Location(str(path))).snapshots


async def test_which_way_it_goes(
    db: SQLiteDatabase, ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call by SQLAlchemy, whose columns are kept; then on the loop, without a task."""
    monkeypatch.setattr(LoopBudget, "_room_for", lambda *_: 1_000)
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
            await connection.execute(text("SELECT 1"))  # it has the reader that knows it
            _ = ways.taken
            await read.one(id=1)
            assert ways.taken == IN_LINE
            await read.one(id=1)
            assert ways.taken == AT_ONCE


async def test_what_sqlite_is_told(path: Path) -> None:
    """The statement, and nothing around it: neither BEGIN nor ROLLBACK."""
    sent: list[str] = []

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(sent.append)

    async with SQLiteDatabase(path, readers=1, on_connect=on_connect) as db:
        await create_items(db.writer_engine)
        read = await learned(db)
        sent.clear()
        await read.one(id=2)
        assert [" ".join(sql.split()) for sql in sent] == [
            "SELECT items.id, items.amount FROM items WHERE items.id = 2"
        ]


async def test_each_call_sees_what_was_committed(db: SQLiteDatabase, by_id: PreparedRead) -> None:
    """A snapshot of its own: not that of the call before, and not what is not committed yet."""
    async with db.writer_engine.connect() as connection:
        await connection.execute(text("UPDATE items SET amount = 7 WHERE id = 1"))
        assert (await by_id.one(id=1)).amount == 0
        await connection.commit()
        assert (await by_id.one(id=1)).amount == 7


@pytest.mark.parametrize(("method", "rows"), [("first", 1), ("scalar", 1), ("one_or_none", 2)])
async def test_no_more_rows_than_are_needed(path: Path, method: str, rows: int) -> None:
    """What is not returned is not even computed."""
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
    """It runs in a thread, and a cancellation stops it there."""
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
    """Behind tasks that came before it, before those that came later."""
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
    """The error names who has the reader, and comes after one wait."""
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
    """A lap of the loop lets in as many as fit into its budget, here one."""
    monkeypatch.setattr(LoopBudget, "_room_for", lambda *_: 1)
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


async def test_the_loop_learns_how_long_they_take(
    by_id: PreparedRead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an iteration lets in as many as have room in it."""
    clock = iter(range(100))
    monkeypatch.setattr(at_once, "perf_counter", lambda: next(clock))
    budget = of_running_loop(LoopBudget)
    before = budget.statistics().mean_seconds
    await by_id.one(id=1)
    assert budget.statistics().mean_seconds == pytest.approx(before + (1 - before) / 16)


async def test_it_waits_for_the_end_of_a_gap(path: Path, by_id: PreparedRead, ways: Ways) -> None:
    """No read begins in a gap, which a checkpoint needs to itself."""
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


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("placed")
@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("way", ["by SQLAlchemy", "in a thread", "in line", "in a lap"])
async def test_cancelled_at_every_await(
    path: Path, stubborn: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is given back, clean, and not opened again."""
    monkeypatch.setattr(jobs, "_LET_GO_SECONDS", 0.0)
    where = "thread" if way == "in a thread" else "auto"
    async with SQLiteDatabase(path, readers=1, placement=where) as db:
        await create_items(db.writer_engine)
        pool: Any = db.reader_engine.pool
        known = await learned(db)
        opened = await raw_connection(db)

        async def hold(taken: asyncio.Event) -> None:
            async with db.reader_engine.connect():
                taken.set()
                await asyncio.sleep(0)

        async def operation() -> None:
            if way == "in line":
                taken = asyncio.Event()
                holder = asyncio.create_task(hold(taken))
                holders.append(holder)
                await taken.wait()
            if way == "in a lap":
                budget = of_running_loop(LoopBudget)
                while budget.enter_nowait():
                    pass
            if way == "by SQLAlchemy":
                await db.prepare(text(f"SELECT {number}")).one()  # new to the connection
            else:
                await known.one(id=1)

        holders: list[asyncio.Task[None]] = []
        number = 1
        while await cancelled_at(operation(), number, stubborn):
            await asyncio.gather(*holders)
            await until(lambda: not len(pool.checkouts))
            assert len(snapshots(path)) == 0
            assert (await known.one(id=2)).id == 2
            number += 1
        assert number > 1
        assert await raw_connection(db) is opened


async def raw_connection(db: SQLiteDatabase) -> object:
    """The only reader, which is as it was opened."""
    async with db.reader_engine.connect() as connection:
        found = await driver(connection)
        assert not found.in_transaction
        assert found.isolation_level == ""
        return found.worker.aiosqlite_connection


async def test_closed_while_it_waits(path: Path) -> None:
    """A call that stands in line is sent away, as at every door."""
    db = await SQLiteDatabase(path, readers=1).open()
    await create_items(db.writer_engine)
    read = await learned(db)
    held: AsyncConnection = await db.reader_engine.connect()
    task = asyncio.create_task(read.one(id=1))
    await until_waiting(1, db.reader_engine.pool)
    closing = asyncio.create_task(db.close())
    with pytest.raises(DatabaseClosedError):
        await task
    await held.close()
    await closing


async def test_closed_while_it_waits_for_the_loop(path: Path) -> None:
    """A call that the loop lets in after close() has begun is sent away, too."""
    db = await SQLiteDatabase(path, readers=1).open()
    await create_items(db.writer_engine)
    read = await learned(db)

    async def wait() -> None:
        budget = of_running_loop(LoopBudget)
        while budget.enter_nowait():
            pass
        await read.one(id=1)

    found, _ = await asyncio.gather(wait(), db.close(), return_exceptions=True)
    assert isinstance(found, DatabaseClosedError)


async def test_a_pool_that_is_disposed_of_meanwhile(db: SQLiteDatabase, ways: Ways) -> None:
    """By another thread: its last connection is closed when it comes back."""
    read = db.prepare(text("SELECT 1"))
    for _ in range(3):
        await read.scalar()
    assert ways.taken[0] > 0
    pool: Any = db.reader_engine.sync_engine.pool

    def execute(connection: sqlite3.Connection, sql: str, parameters: Any) -> Reply:
        pool.dispose()
        return execute_at_once(connection, sql, parameters)

    budget = of_running_loop(LoopBudget)
    reply = pool.read_at_once(budget, "SELECT 1", (), execute, None)
    assert reply is not None
    assert reply.rows == [(1,)]
    assert pool.checkedin() == 0
    await db.reader_engine.dispose()


async def test_engines_that_are_disposed_of(db: SQLiteDatabase, by_id: PreparedRead) -> None:
    """The next call opens a connection of the new pool."""
    await db.reader_engine.dispose()
    for _ in range(3):
        assert (await by_id.one(id=1)).id == 1


@pytest.mark.parametrize("known", [False, True], ids=["by SQLAlchemy", "in line"])
async def test_a_long_one_is_stopped_by_close(path: Path, ways: Ways, known: bool) -> None:
    """close() waits no longer than it says, whichever way a call runs."""
    async with SQLiteDatabase(path, readers=1, close_timeout=0.01) as db:
        read = db.prepare(COUNT_TO)
        if known:
            await read.scalar(rows=10)
        _ = ways.taken
        task = asyncio.create_task(read.scalar(rows=10**12))
        await until(lambda: ways.taken == (IN_LINE if known else BY_SQLALCHEMY))
        pool: Any = db.reader_engine.pool
        await until(lambda: len(pool.checkouts))
    with pytest.raises((DatabaseClosedError, OperationalError)):
        await task


# -- loops -----------------------------------------------------------------------------------------


@pytest.fixture
async def busy(path: Path) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(path, readers=2) as database:
        await create_items(database.writer_engine)
        yield database


async def test_loops_in_several_threads(busy: SQLiteDatabase) -> None:
    """One object for all; no more connections are opened than there are readers."""
    read = await learned(busy)
    start = threading.Barrier(4)

    async def many() -> int:
        start.wait(30)
        return sum([(await read.one(id=number % 3 + 1)).id for number in range(300)])

    with ThreadPoolExecutor(4) as threads:
        loop = asyncio.get_running_loop()
        sums = await asyncio.gather(
            *(loop.run_in_executor(threads, lambda: asyncio.run(many())) for _ in range(4))
        )
    assert sums == [600] * 4
    pool: Any = busy.reader_engine.pool
    assert pool.checkedin() <= 2
    assert pool.checkedout() == 0
    assert pool._line.statistics().holders == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_forked_child(path: Path) -> None:
    """It reads by connections of its own, and so does its parent afterwards."""
    command = [sys.executable, "-m", "tests.prepared.forking", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["child", "3", "parent", "3", "exit", "0"], "")
