"""Cancellations of functions, both waiting and running."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import SnapshotTooOldError, SQLiteDatabase
from sa_sqlite_pool.pools.impl import WriterPool
from tests.closures.work import (
    ENDLESS_WRITE,
    LONG,
    Counting,
    Inside,
    Sent,
    add,
    added,
    bump,
    cancelled,
    turn_held,
)
from tests.helpers import (
    ENDLESS,
    SleepingFunction,
    create_items,
    turn_of,
    until,
    until_free,
)


async def test_cancelled_in_line(db: SQLiteDatabase, path: Path) -> None:
    """It never runs; the others of its group do, and the line continues."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11, 12)]
        await asyncio.sleep(0)
        assert await cancelled(tasks[0])
        assert await cancelled(tasks[2])
        assert turn_of(path).waiting == 1
    assert await tasks[1] == 11
    assert await added(db) == [11]


async def test_all_cancelled_in_line(db: SQLiteDatabase, path: Path) -> None:
    """A group in which no call waits any more leaves the line before its turn."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
        await asyncio.sleep(0)
        for task in tasks:
            assert await cancelled(task)
        await until(lambda: turn_of(path).waiting == 0)
    assert await db.run_write_core(add, 12) == 12
    assert await added(db) == [12]


@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_WRITE])
async def test_cancelled_while_it_runs(db: SQLiteDatabase, path: Path, sql: object) -> None:
    """A single function is stopped in the middle of its statement, and rolled back."""
    fn = Counting(sql)
    task = asyncio.ensure_future(db.run_write_core(fn))
    assert await asyncio.to_thread(fn.begun.wait, 30)
    assert await cancelled(task)
    await until_free(path)
    async with db.write() as session:  # and nothing stops the next one on this connection
        assert await session.scalar(LONG) == 100_000
    assert await added(db) == []


async def test_a_reader_cancelled_while_it_runs(db: SQLiteDatabase) -> None:
    """It is stopped in the middle of its statement, and its connection continues to be used."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        begun.set()
        connection.execute(ENDLESS)

    task = asyncio.ensure_future(db.run_read_core(count))
    assert await asyncio.to_thread(begun.wait, 30)
    assert await cancelled(task)
    assert await added(db) == []


async def test_a_reader_cancelled_between_two_statements(db: SQLiteDatabase) -> None:
    """It does not continue with the next statement."""
    gone_on: list[int] = []

    def read(connection: Connection) -> None:
        inside(connection)
        gone_on.extend(connection.execute(text("SELECT 1")).scalars())

    inside = Inside()
    task = asyncio.ensure_future(db.run_read_core(read))
    await inside.until_entered()
    task.cancel()
    await asyncio.sleep(0)
    inside.leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone_on == []


async def test_a_snapshot_that_is_too_old(db: SQLiteDatabase) -> None:
    """If the log's keeper ends it, during a statement or before one, the function gets an error."""

    def stay(connection: Connection) -> None:
        inside(connection)
        connection.execute(text("SELECT 1"))

    def count(connection: Connection) -> None:
        inside(connection)
        running.set()
        connection.execute(ENDLESS)

    pool = db.writer_engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None
    for fn in (stay, count):
        inside, running = Inside(), threading.Event()
        task = asyncio.ensure_future(db.run_read_core(fn))
        await inside.until_entered()
        if fn is count:
            inside.leave.set()
            assert await asyncio.to_thread(running.wait, 30)
        for snapshot in pool.keeper.snapshots:
            snapshot.end_early(lambda: SnapshotTooOldError("too old"))
        await asyncio.sleep(0)
        inside.leave.set()
        with pytest.raises(OperationalError, match="too old") as caught:
            await task
        assert isinstance(caught.value.orig, SnapshotTooOldError)
    assert await added(db) == []


async def test_a_reader_waits_for_a_gap(db: SQLiteDatabase) -> None:
    """While the log is to be truncated, functions that read wait like other readers."""
    pool = db.writer_engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None
    inside = Inside()
    inside.leave.set()
    with pool.keeper.snapshots.gap(30):
        task = asyncio.ensure_future(db.run_read_core(inside))
        for _ in range(20):
            await asyncio.sleep(0)
        assert inside.runs == 0
    await task
    assert inside.runs == 1


async def test_cancelled_in_a_group(db: SQLiteDatabase, path: Path) -> None:
    """Where SQLite would roll back the others' work, a statement that writes is not stopped: the
    function ends at its next statement, and is rolled back alone."""
    inside = Inside(bump)
    tasks: list[asyncio.Future[object]] = []
    async with turn_held(db):
        for fn in (lambda c: add(c, 10), inside, lambda c: add(c, 11)):
            tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
            await asyncio.sleep(0)
    await inside.until_entered()
    tasks[1].cancel()
    await asyncio.sleep(0)
    inside.leave.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[2]] == [10, 11]
    assert isinstance(results[1], asyncio.CancelledError)
    assert await added(db) == [10, 11]


async def test_cancelled_in_a_group_while_it_reads(db: SQLiteDatabase) -> None:
    """A statement that only reads is stopped at once, because SQLite keeps the transaction."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        add(connection, 50)
        begun.set()
        connection.execute(ENDLESS)

    tasks: list[asyncio.Future[object]] = []
    async with turn_held(db):
        for fn in (lambda c: add(c, 10), count, lambda c: add(c, 11)):
            tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
            await asyncio.sleep(0)
    assert await asyncio.to_thread(begun.wait, 30)
    assert await cancelled(tasks[1])
    assert [await tasks[0], await tasks[2]] == [10, 11]
    assert await added(db) == [10, 11]


async def test_cancelled_in_a_group_while_it_writes(path: Path) -> None:
    """A long statement that writes runs to its end, and is rolled back alone."""
    sleeping = SleepingFunction()
    slowly = text(
        "WITH RECURSIVE n(i) AS (SELECT 1000 + sleep() UNION ALL SELECT i + 1 FROM n LIMIT 20000) "
        "INSERT INTO items (id, amount) SELECT i, 0 FROM n"
    )
    async with SQLiteDatabase(path, on_connect=sleeping.on_connect) as db:
        await create_items(db.writer_engine)
        tasks: list[asyncio.Future[Any]] = []
        async with turn_held(db):
            for fn in (lambda c: add(c, 10), lambda c: c.execute(slowly), lambda c: add(c, 11)):
                tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
                await asyncio.sleep(0)
        assert await asyncio.to_thread(sleeping.inside.wait, 30)
        tasks[1].cancel()
        await asyncio.sleep(0)
        sleeping.leave.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[0], results[2]] == [10, 11]
        assert isinstance(results[1], asyncio.CancelledError)
        assert await added(db) == [10, 11]


async def test_cancelled_twice(db: SQLiteDatabase) -> None:
    """A second cancellation does not shorten the wait for the end."""
    inside = Inside(bump)
    task = asyncio.ensure_future(db.run_write_core(inside))
    await inside.until_entered()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    inside.leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.read() as session:
        assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 0


async def test_a_function_that_does_not_come_back(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is abandoned after a while, and rolled back when it returns, even if it executes nothing
    any more."""
    monkeypatch.setattr("sa_sqlite_pool.closures.line._LET_GO_SECONDS", 0.01)

    def store(connection: Connection) -> None:
        add(connection, 10)
        inside(connection)

    inside = Inside()
    task = asyncio.ensure_future(db.run_write_core(store))
    await inside.until_entered()
    assert await cancelled(task)
    assert turn_of(path).holder is not None
    inside.leave.set()
    await until_free(path)
    assert await added(db) == []


async def test_a_reader_that_does_not_come_back(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same applies, and its connection is returned afterwards."""
    monkeypatch.setattr("sa_sqlite_pool.execution.jobs._LET_GO_SECONDS", 0.01)
    inside = Inside()
    for _ in range(5):  # there are four readers
        inside = Inside()
        task = asyncio.ensure_future(db.run_read_core(inside))
        await inside.until_entered()
        assert await cancelled(task)
        inside.leave.set()
    assert await added(db) == []


async def test_settings_of_one_that_does_not_come_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it has changed settings, its connection is not kept for the next one."""
    monkeypatch.setattr("sa_sqlite_pool.execution.jobs._LET_GO_SECONDS", 0.01)
    opened: list[sqlite3.Connection] = []
    inside = Inside()

    def change(connection: Connection) -> None:
        connection.execute(text("PRAGMA case_sensitive_like = ON"))
        inside(connection)

    def like(connection: Connection) -> int:
        return int(connection.execute(text("SELECT 'a' LIKE 'A'")).scalar_one())

    async with SQLiteDatabase(path, readers=1, on_connect=opened.append) as db:
        task = asyncio.ensure_future(db.run_read_core(change))
        await inside.until_entered()
        before = len(opened)
        assert await cancelled(task)
        inside.leave.set()
        assert await db.run_read_core(like) == 1
        assert len(opened) == before + 1


async def test_a_cancellation_during_the_commit(db: SQLiteDatabase, sent: Sent) -> None:
    """After COMMIT was sent, the task is cancelled only once it has ended, and the row is kept."""
    task = asyncio.ensure_future(db.run_write_core(add, 10))
    committing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note(statement: str) -> None:
        if statement == "COMMIT":
            loop.call_soon_threadsafe(task.cancel)
            loop.call_soon_threadsafe(committing.set)

    sent.append = note  # type: ignore[method-assign]
    async with db.writer_engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw._conn.set_trace_callback(note)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert committing.is_set()
    assert await added(db) == [10]
