"""A function that closes SQLite's own connection, which it was lent, is the only one to fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase
from tests.closures.test_driver_connection import raw
from tests.closures.work import add, added, ids, in_line


def closes(connection: Connection) -> None:
    with contextlib.closing(raw(connection)) as driver:
        driver.execute("SELECT 1")


def closes_and_goes_on(connection: Connection) -> None:
    closes(connection)
    connection.execute(text("SELECT 1"))


def closes_and_fails(connection: Connection) -> None:
    closes(connection)
    raise ZeroDivisionError


def closes_under_a_stream(connection: Connection) -> None:
    options = {"stream_results": True}
    rows = connection.execute(text("SELECT id FROM items"), execution_options=options)
    rows.fetchone()
    closes(connection)


def closes_before_the_commit(session: Session) -> None:
    event.listen(session, "before_commit", lambda of: closes(of.connection()))


CLOSING = [closes, closes_and_goes_on, closes_and_fails, closes_under_a_stream]


async def outcomes(*calls: Any) -> list[Any]:
    """Return the result or error of each call, all of which must end."""
    gathered = asyncio.gather(*calls, return_exceptions=True)
    return await asyncio.wait_for(gathered, 30)


@pytest.mark.parametrize("fn", CLOSING)
async def test_in_a_function_that_reads(one: SQLiteDatabase, fn: Any) -> None:
    """Those behind it read on another connection, and it gets its own error or SQLite's."""
    results = await outcomes(
        *(one.run_read_core(ids), one.run_read_core(fn), one.run_read_core(ids)),
        one.run_read_core(ids),
    )
    assert results[:1] + results[2:] == [[1, 2, 3]] * 3
    assert_is_its_own(results[1], fn)
    assert await one.run_read_core(ids) == [1, 2, 3]


@pytest.mark.parametrize("fn", CLOSING)
async def test_in_a_function_that_writes(db: SQLiteDatabase, path: Path, fn: Any) -> None:
    """Calls that shared its transaction are lost and get an error; those in line continue."""
    calls = [partial(db.run_write_core, fn), partial(db.run_write_core, add, 11)]
    results = await in_line(db, path, partial(db.run_write_core, add, 10), *calls)
    assert isinstance(results[0], OperationalError)
    assert "no active connection: it was closed" in str(results[0])
    assert_is_its_own(results[1], fn)
    assert results[2] == 11
    assert await added(db) == [11]


async def test_before_the_commit(db: SQLiteDatabase, path: Path) -> None:
    """A listener of the session may do the same after the function has returned."""
    results = await in_line(
        *(db, path),
        partial(db.run_write, closes_before_the_commit),
        partial(db.run_write_core, add, 11),
    )
    assert "closed" in str(results[0])
    assert results[1] == 11
    assert await added(db) == [11]


KEPT: list[Any] = []


def keeps(connection: Connection) -> None:
    KEPT.append(raw(connection))


def closes_what_was_kept(_: Connection) -> None:
    KEPT.pop().close()


async def test_one_that_an_earlier_function_has_kept(db: SQLiteDatabase, path: Path) -> None:
    """The calls in line continue."""
    calls: list[Callable[[Connection], Any]] = [keeps]
    calls += [closes_what_was_kept, partial(add, key=11), partial(add, key=12)]
    results = await in_line(db, path, *(partial(db.run_write_core, call) for call in calls))
    for error in results[:2]:
        assert "Cannot operate on a closed database" in str(error)
    assert results[2:] == [11, 12]
    assert await added(db) == [11, 12]


async def test_after_the_commit(db: SQLiteDatabase, path: Path) -> None:
    """All calls are told that they are committed, even the one whose listener has closed it."""

    def closes_afterwards(session: Session) -> int:
        driver = raw(session.connection())
        event.listen(session, "after_commit", lambda _: driver.close())
        return add(session.connection(), 11)

    results = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write, closes_afterwards),
        partial(db.run_write_core, add, 12),
    )
    assert results == [10, 11, 12]
    assert await added(db) == [10, 11, 12]
    assert await asyncio.wait_for(db.run_write_core(add, 13), 30) == 13


@pytest.mark.parametrize("closing", ["sqlite", "aiosqlite"])
async def test_one_that_a_listener_has_closed(db: SQLiteDatabase, closing: str) -> None:
    """Before any function has run, each call gets the error of one attempt, and none waits."""
    times = []

    def close(connection: Any, *_: object) -> None:
        times.append(1)
        if closing == "sqlite":
            connection.driver_connection._conn.close()
        else:
            connection.run_async(lambda driver: driver.close())

    engine = db.writer_engine.sync_engine
    event.listen(engine, "checkout", close)
    results = await outcomes(*(db.run_write_core(add, key) for key in (10, 11)))
    assert all("closed" in str(error) for error in results)
    assert times == [1, 1]
    event.remove(engine, "checkout", close)
    assert await db.run_write_core(add, 12) == 12
    assert await added(db) == [12]


def assert_is_its_own(error: Any, fn: Any) -> None:
    if fn is closes_and_fails:
        assert isinstance(error, ZeroDivisionError)
    else:
        assert "Cannot operate on a closed database" in str(error)
