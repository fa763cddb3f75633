"""Listeners check the type of their arguments: SQLAlchemy's and aiosqlite's classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
)
from sqlalchemy.engine import AdaptedConnection, Engine
from sqlalchemy.pool import Pool

from .doors import Door

ON = "PRAGMA foreign_keys = ON"


def _by_adapter(connection: Any) -> None:
    if isinstance(connection, AsyncAdapt_aiosqlite_connection):
        connection.execute(ON)


def _by_base(connection: Any) -> None:
    if not isinstance(connection, AdaptedConnection):
        return
    adapted: Any = connection
    adapted.cursor().execute(ON)


def _by_driver(connection: Any) -> None:
    if isinstance(connection.driver_connection, aiosqlite.Connection):
        connection.cursor().execute(ON)


def _by_cursor(connection: Any) -> None:
    cursor = connection.cursor()
    if isinstance(cursor, AsyncAdapt_aiosqlite_cursor):
        cursor.execute(ON)
    cursor.close()


def _by_module(connection: Any) -> None:
    if "sqlite" in type(connection).__name__.lower():
        connection.cursor().execute(ON)


def _by_what_is_printed(connection: Any) -> None:
    if "aiosqlite" in str(type(connection)):
        connection._connection._connection.execute(ON)  # of sqlite3, in any thread


def _by_name(connection: Any) -> None:
    if type(connection).__name__ == "AsyncAdapt_aiosqlite_connection":
        connection.cursor().execute(ON)


LISTENERS = [
    _by_adapter,
    _by_base,
    _by_driver,
    _by_cursor,
    _by_module,
    _by_what_is_printed,
    _by_name,
]
each = pytest.mark.parametrize("function", LISTENERS)


@pytest.fixture(params=[Engine, Pool])
def listen(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Any], None]], None]]:
    """Add a listener to all engines or all pools of the process, and remove it afterwards."""
    kept: list[Any] = []

    def listen(function: Callable[[Any], None]) -> None:
        def connect(connection: Any, _record: Any) -> None:
            function(connection)

        event.listen(request.param, "connect", connect)
        kept.append(connect)

    yield listen
    for connect in kept:
        event.remove(request.param, "connect", connect)


@each
async def test_foreign_keys_are_on(door: Door, listen: Any, function: Any) -> None:
    """A listener that checks the type before it sets the PRAGMA does set it."""
    listen(function)
    app = await door.open(
        own={} if door.kind == "swap-in" else {"pragmas": {"foreign_keys": False}}
    )
    async with app.writer.connect() as connection:
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
    assert await app.value("PRAGMA foreign_keys") == 1


async def test_the_raw_connection(door: Door) -> None:
    """The objects reached through get_raw_connection() have the same classes."""
    app = await door.open()
    for engine in app.engines:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert isinstance(raw.dbapi_connection, AsyncAdapt_aiosqlite_connection)
            assert isinstance(raw.driver_connection, aiosqlite.Connection)


async def test_the_cursor_in_events(door: Door) -> None:
    """before_cursor_execute receives a cursor of the adapter's connection."""
    app = await door.open()
    seen: list[Any] = []

    def before(_conn: Any, cursor: Any, *_: Any) -> None:
        seen.append(cursor)

    event.listen(app.writer.sync_engine, "before_cursor_execute", before)
    await app.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    assert seen
    assert all(isinstance(cursor, AsyncAdapt_aiosqlite_cursor) for cursor in seen)
    assert {type(cursor).__name__ for cursor in seen} == {AsyncAdapt_aiosqlite_cursor.__name__}
    assert [cursor.rowcount for cursor in seen][-1] == 1
