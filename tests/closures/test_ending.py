"""Functions at the time of close(), and at the ends of event loops."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.closures.group import Group
from sa_sqlite_pool.pools.base import FairPool
from tests.closures.work import (
    ENDLESS_WRITE,
    Counting,
    Inside,
    Sent,
    add,
    added,
    cancelled,
    in_line,
    turn_held,
)
from tests.helpers import (
    ENDLESS,
    create_items,
    turn_of,
    until,
    until_free,
)


async def test_closing_while_one_runs(db: SQLiteDatabase, path: Path) -> None:
    """A call that has not begun is refused at once; a running one may end in time."""
    inside = Inside(lambda connection: add(connection, 10))
    tasks = [asyncio.ensure_future(db.run_write_core(inside))]
    await inside.until_entered()
    tasks.append(asyncio.ensure_future(db.run_write_core(add, 11)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(db.close())
    with pytest.raises(DatabaseClosedError, match="being closed"):
        await tasks[1]
    inside.leave.set()
    assert await tasks[0] == 10
    await closing
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT id FROM items WHERE id > 3").fetchall()
    connection.close()
    assert rows == [(10,)]


async def test_closing_those_in_line(db: SQLiteDatabase) -> None:
    """A group that waits in line is sent away as a whole."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(db.close(0))
        for task in tasks:
            with pytest.raises(DatabaseClosedError):
                await task
    await closing


@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_WRITE])
async def test_closing_stops_what_runs(db: SQLiteDatabase, sql: object) -> None:
    """After close_timeout, its statement is stopped and rolled back."""
    fn = Counting(sql)
    task = asyncio.ensure_future(db.run_write_core(fn))
    assert await asyncio.to_thread(fn.begun.wait, 30)
    began = time.monotonic()
    await db.close(0.05)
    assert time.monotonic() - began < 5
    with pytest.raises(OperationalError, match="was closed"):
        await task


async def test_closing_a_group(db: SQLiteDatabase) -> None:
    """Uncommitted work is lost with the running function, and each call gets an error."""
    inside = Inside(lambda connection: add(connection, 11))
    async with turn_held(db):
        tasks: list[asyncio.Future[Any]] = []
        for fn in (lambda c: add(c, 10), lambda c: add(c, 12), inside):
            tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
            await asyncio.sleep(0)
    await inside.until_entered()
    closing = asyncio.ensure_future(db.close(0.01))
    pool = db.writer_engine.pool
    assert isinstance(pool, FairPool)
    (checkout,) = pool.checkouts
    await until(lambda: checkout.connection is None or checkout.connection.given_up)
    inside.leave.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    causes = set()
    for error in errors:
        assert isinstance(error, OperationalError)
        assert "was closed" in str(error)
        causes.add(id(error.orig))
    assert len(causes) == 3  # each with its own traceback
    await closing


async def test_closing_stops_readers(db: SQLiteDatabase) -> None:
    """The same applies to functions that read."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        begun.set()
        connection.execute(ENDLESS)

    task = asyncio.ensure_future(db.run_read_core(count))
    assert await asyncio.to_thread(begun.wait, 30)
    await db.close(0.05)
    with pytest.raises(OperationalError, match="was closed"):
        await task


async def test_the_leader_is_cancelled(db: SQLiteDatabase) -> None:
    """If another task cancels all tasks except its own, the calls that still wait are served."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
        await asyncio.sleep(0)
        (leader,) = [t for t in asyncio.all_tasks() if t.get_name().startswith("group commit")]
        assert await cancelled(leader)
    assert await asyncio.gather(*tasks) == [10, 11]
    assert await added(db) == [10, 11]


def test_a_loop_that_ends_in_the_middle(path: Path) -> None:
    """Waiting and running calls end with their loop, and the next loop finds the turn free."""
    inside = Inside()
    db = SQLiteDatabase(path)

    async def leave() -> None:
        await db.open()
        await create_items(db.writer_engine)
        for fn in (inside, lambda c: add(c, 10), lambda c: add(c, 11)):
            asyncio.ensure_future(db.run_write_core(fn))  # noqa: RUF006 - nobody waits
        await inside.until_entered()
        threading.Timer(0.05, inside.leave.set).start()

    async def go_on() -> None:
        assert await db.run_write_core(add, 12) == 12
        assert await added(db) == [12]
        await db.close()

    asyncio.run(leave())
    asyncio.run(go_on())


async def test_two_loops(db: SQLiteDatabase, path: Path, sent: Sent) -> None:
    """The functions of each loop have separate groups in one line."""
    others: list[int] = []

    def in_another_loop() -> None:
        async def run() -> None:
            others.extend(
                await asyncio.gather(*(db.run_write_core(add, key) for key in range(20, 25)))
            )

        asyncio.run(run())

    own, _ = await asyncio.gather(
        asyncio.gather(*(db.run_write_core(add, key) for key in range(10, 15))),
        asyncio.to_thread(in_another_loop),
    )
    assert (own, others) == (list(range(10, 15)), list(range(20, 25)))
    assert await added(db) == [*range(10, 15), *range(20, 25)]


async def test_a_function_that_computes_is_not_idle(db: SQLiteDatabase) -> None:
    """Between two statements it counts as working, so no warning is logged."""
    for engine, run in (
        (db.writer_engine, db.run_write_core),
        (db.reader_engine, db.run_read_core),
    ):
        inside = Inside()
        task = asyncio.ensure_future(run(inside))
        await inside.until_entered()
        assert isinstance(engine.pool, FairPool)
        (checkout,) = engine.pool.checkouts
        assert checkout.permit.idle_since is None
        inside.leave.set()
        await task


async def test_results_of_a_group_in_line(db: SQLiteDatabase, path: Path) -> None:
    """A task may call again as soon as it has its result, as its turn is then released."""

    async def thrice(start: int) -> list[int]:
        return [await db.run_write_core(add, start + step) for step in range(3)]

    results = await in_line(db, path, lambda: thrice(10), lambda: thrice(20))
    assert results == [[10, 11, 12], [20, 21, 22]]


async def test_nothing_is_left_of_a_group(db: SQLiteDatabase, path: Path) -> None:
    """No timer keeps what is over; the connection's last job does, until the next one."""
    for key in range(10, 15):
        await db.run_write_core(add, key)
    await until_free(path)
    await asyncio.sleep(0)
    gc.collect()
    groups = [thing for thing in gc.get_objects() if isinstance(thing, Group)]
    assert sum(group._groups is db._closures._writes for group in groups) <= 1


async def test_nothing_of_a_closed_database_is_kept_with_its_dialect(path: Path) -> None:
    """SQLAlchemy's mappers keep dialects and their listeners, but no file or thread."""
    db = await SQLiteDatabase(path).open()
    await create_items(db.writer_engine)
    await db.run_write_core(add, 10)
    await db.close()
    dialect, turn = db.writer_engine.dialect, weakref.ref(turn_of(path))
    del db
    await asyncio.sleep(0)
    gc.collect()
    assert turn() is None
    del dialect
