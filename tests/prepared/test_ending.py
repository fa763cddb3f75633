"""Prepared reads that are cancelled, closed, or used in other loops and processes."""

from __future__ import annotations

import asyncio
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
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.execution import jobs
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.execution.replies import Reply, execute_at_once
from sa_sqlite_pool.prepared.read import PreparedRead
from sa_sqlite_pool.system.loop_state import of_running_loop
from tests.cancelling import cancelled_at
from tests.helpers import (
    create_items,
    driver,
    until,
    until_waiting,
)
from tests.prepared.conftest import (
    BY_SQLALCHEMY,
    COUNT_TO,
    IN_LINE,
    Ways,
    learned,
    snapshots,
)


@pytest.mark.usefixtures("placed")
@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("way", ["by SQLAlchemy", "in a thread", "in line", "in a lap"])
async def test_cancelled_at_every_await(
    path: Path, stubborn: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is returned in a clean state, and is not reopened."""
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
    """Return the only reader, which must be as it was opened."""
    async with db.reader_engine.connect() as connection:
        found = await driver(connection)
        assert not found.in_transaction
        assert found.isolation_level == ""
        return found.worker.aiosqlite_connection


async def test_closed_while_it_waits(path: Path) -> None:
    """A call that waits in line is sent away, as at every door."""
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
    """A call that the loop admits after close() has begun is sent away, too."""
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
    """Another thread disposes of it: its last connection is closed when it is returned."""
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
    """The next call opens a connection in the new pool."""
    await db.reader_engine.dispose()
    for _ in range(3):
        assert (await by_id.one(id=1)).id == 1


@pytest.mark.parametrize("known", [False, True], ids=["by SQLAlchemy", "in line"])
async def test_a_long_one_is_stopped_by_close(path: Path, ways: Ways, known: bool) -> None:
    """close() waits no longer than its time-out, whichever way a call runs."""
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
    """All loops share one object, and no more connections are opened than there are readers."""
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
    """The child reads through its own connections, and so does its parent afterwards."""
    command = [sys.executable, "-m", "tests.prepared.forking", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["child", "3", "parent", "3", "exit", "0"], "")
