"""A function that closes SQLite's own connection, which it was lent: it alone fails."""

from __future__ import annotations

import asyncio
import contextlib
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
    """What each returns or raises; one that does not end would be a failure."""
    gathered = asyncio.gather(*calls, return_exceptions=True)
    return await asyncio.wait_for(gathered, 30)


@pytest.mark.parametrize("fn", CLOSING)
async def test_in_a_function_that_reads(one: SQLiteDatabase, fn: Any) -> None:
    """Those behind it read on another connection; it gets its error, or SQLite's."""
    results = await outcomes(
        *(one.run_read_core(ids), one.run_read_core(fn), one.run_read_core(ids)),
        one.run_read_core(ids),
    )
    assert results[:1] + results[2:] == [[1, 2, 3]] * 3
    assert_is_its_own(results[1], fn)
    assert await one.run_read_core(ids) == [1, 2, 3]


@pytest.mark.parametrize("fn", CLOSING)
async def test_in_a_function_that_writes(db: SQLiteDatabase, path: Path, fn: Any) -> None:
    """What shared its transaction is lost with it, and says so; those in line go on."""
    calls = [partial(db.run_write_core, fn), partial(db.run_write_core, add, 11)]
    results = await in_line(db, path, partial(db.run_write_core, add, 10), *calls)
    assert isinstance(results[0], OperationalError)
    assert "no active connection: it was closed" in str(results[0])
    assert_is_its_own(results[1], fn)
    assert results[2] == 11
    assert await added(db) == [11]


async def test_before_the_commit(db: SQLiteDatabase, path: Path) -> None:
    """A listener of the session may do the same, after the function has returned."""
    results = await in_line(
        *(db, path),
        partial(db.run_write, closes_before_the_commit),
        partial(db.run_write_core, add, 11),
    )
    assert "closed" in str(results[0])
    assert results[1] == 11
    assert await added(db) == [11]


def assert_is_its_own(error: Any, fn: Any) -> None:
    if fn is closes_and_fails:
        assert isinstance(error, ZeroDivisionError)
    else:
        assert "Cannot operate on a closed database" in str(error)
