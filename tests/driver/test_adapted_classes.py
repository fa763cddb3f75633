"""Adapted connections and cursors are instances of SQLAlchemy's classes, and act alike.

Results are compared side by side with a stock engine, on whichever SQLAlchemy is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects.sqlite import aiosqlite as stock
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.driver.cursors import Cursor, StreamCursor
from tests.conftest import MakeEngine
from tests.helpers import create_items

CLASSES = [
    (stock.AsyncAdapt_aiosqlite_connection, SQLiteConnection),
    (stock.AsyncAdapt_aiosqlite_cursor, Cursor),
    (stock.AsyncAdapt_aiosqlite_ss_cursor, StreamCursor),
]
# Members that may stay SQLAlchemy's, as they use names that are replaced. ``create()`` serves
# dialects whose ``connect()`` uses it, which this one's does not.
THEIRS = {"create", "dbapi", "driver_connection", "run_async"}

IDS = "SELECT id FROM items ORDER BY id"


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("theirs", "ours"), CLASSES)
def test_every_public_name_is_replaced(theirs: type, ours: type) -> None:
    """No inherited member accesses attributes that only SQLAlchemy's own objects have."""
    assert issubclass(ours, theirs)
    own: set[str] = set()
    for kind in ours.__mro__:
        if kind.__module__.startswith("sa_sqlite_pool"):
            own |= set(vars(kind))
    assert public(theirs) - own - THEIRS == set()


def test_slots() -> None:
    """They take no more memory than necessary, as one is created for each statement."""
    assert [ours for _, ours in CLASSES if ours.__dictoffset__] == []


@pytest.mark.parametrize("pool", [SQLitePool, WriterPool, ReaderPool])
async def test_listeners_that_ask_for_the_class(pool: type, make_engine: MakeEngine) -> None:
    """A listener of all engines that detects SQLite by SQLAlchemy's class sets its PRAGMA."""

    def foreign_keys(connection: Any, _: Any) -> None:
        if isinstance(connection, stock.AsyncAdapt_aiosqlite_connection):
            connection.execute("PRAGMA foreign_keys = ON")
            with closing(connection.cursor()) as cursor:
                cursor.execute("PRAGMA cache_size = -321")

    await create_items(make_engine(SQLitePool))
    event.listen(Engine, "connect", foreign_keys)
    try:
        engine = make_engine(pool, pragmas={"foreign_keys": False})
        async with engine.connect() as connection:
            for pragma, expected in (("foreign_keys", 1), ("cache_size", -321)):
                found = await connection.execute(text(f"PRAGMA {pragma}"))
                assert found.scalar_one() == expected
    finally:
        event.remove(Engine, "connect", foreign_keys)


async def test_cursors_are_of_the_classes(swap_in: AsyncEngine) -> None:
    """Execution events receive instances of SQLAlchemy's classes, too."""
    await create_items(swap_in)
    seen: list[Any] = []

    @event.listens_for(swap_in.sync_engine, "before_cursor_execute")
    def note(_connection: Any, cursor: Any, *_: Any) -> None:
        seen.append(cursor)

    async with swap_in.connect() as connection:
        await connection.execute(text(IDS))
        async with connection.stream(text(IDS)) as result:
            await result.fetchmany(1)
    assert isinstance(seen[0], stock.AsyncAdapt_aiosqlite_cursor)
    assert isinstance(seen[1], stock.AsyncAdapt_aiosqlite_ss_cursor)


# -- side by side ---------------------------------------------------------------------------------


def executed(connection: Any, sql: str = IDS, **options: Any) -> Any:
    cursor = connection.cursor(**options)
    cursor.execute(sql)
    return cursor


def stream(connection: Any, sql: str = IDS) -> Any:
    return executed(connection, sql, server_side=True)


def after_fetching(cursor: Any) -> Any:
    cursor.fetchall()
    return cursor.fetchone(), cursor.fetchmany(3), cursor.fetchall(), list(cursor)


def with_array(cursor: Any, size: int) -> Any:
    cursor.arraysize = size
    return cursor


def closed(cursor: Any) -> Any:
    cursor.close()
    return cursor


def both(cursor: Any) -> Any:
    return cursor.description, cursor.fetchall()


def level(connection: Any, *levels: str | None) -> Any:
    seen = []
    for each in levels:
        connection.isolation_level = each
        seen.append(connection.isolation_level)
    connection.isolation_level = ""
    return seen


def function(connection: Any) -> Any:
    connection.create_function("twice", 1, lambda x: 2 * x, deterministic=True)
    return executed(connection, "SELECT twice(21)").fetchall()


def many(connection: Any) -> Any:
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO items (amount) VALUES (?)", [(5,), (6,)])
    found = cursor.rowcount, cursor.description, cursor.fetchall()
    connection.rollback()
    return found


def inserted(connection: Any) -> Any:
    cursor = executed(connection, "INSERT INTO items (id, amount) VALUES (70, 1)")
    found = cursor.rowcount, cursor.lastrowid, cursor.description
    connection.rollback()
    return found


def returned(connection: Any) -> Any:
    cursor = executed(connection, "INSERT INTO items (id) VALUES (80) RETURNING id")
    found = cursor.fetchall(), cursor.description
    connection.rollback()
    return found


def iterated(cursor: Any) -> Iterator[Any]:
    yield cursor.fetchone()
    yield from cursor


def by_run_async(connection: Any) -> Any:
    async def ask(raw: Any) -> Any:
        async with raw.execute(IDS) as cursor:
            return await cursor.fetchall()

    return connection.run_async(ask)


SAME = {
    "rows": lambda c: executed(c).fetchall(),
    "row": lambda c: executed(c).fetchone(),
    "many": lambda c: executed(c).fetchmany(2),
    "many by default": lambda c: executed(c).fetchmany(),
    "many by arraysize": lambda c: with_array(executed(c), 2).fetchmany(),
    "many more": lambda c: executed(c).fetchmany(99),
    "arraysize": lambda c: c.cursor().arraysize,
    "iteration": lambda c: list(iterated(executed(c))),
    "nothing left": lambda c: after_fetching(executed(c)),
    "description": lambda c: executed(c, "SELECT 1 AS a, 'x' AS b").description,
    "description of none": lambda c: executed(c, "SELECT 1 WHERE 0").description,
    "no description": lambda c: c.cursor().description,
    "empty": lambda c: both(executed(c, "SELECT 1 AS a WHERE 0")),
    "no statement yet": lambda c: (
        c.cursor().fetchone(),
        c.cursor().fetchall(),
        c.cursor().rowcount,
    ),
    "rowcount of a read": lambda c: executed(c).rowcount,
    "inserted": inserted,
    "returned": returned,
    "executemany": many,
    "server_side": lambda c: (c.cursor().server_side, c.cursor(server_side=True).server_side),
    "parameters": lambda c: [
        c.cursor().execute("SELECT 1", None),
        executed(c, "SELECT 1").fetchall(),
    ][1],
    "closed twice": lambda c: closed(closed(executed(c))).fetchall(),
    "stream": lambda c: stream(c).fetchall(),
    "stream, row": lambda c: stream(c).fetchone(),
    "stream, many": lambda c: stream(c).fetchmany(2),
    "stream, many by default": lambda c: stream(c).fetchmany(),
    "stream, many by arraysize": lambda c: with_array(stream(c), 2).fetchmany(),
    "stream, nothing left": lambda c: after_fetching(stream(c)),
    "stream, description": lambda c: both(stream(c)),
    "stream, closed twice": lambda c: type(closed(closed(stream(c)))).server_side,
    "isolation_level": lambda c: level(c, None, "", "IMMEDIATE", "DEFERRED", "EXCLUSIVE"),
    "no isolation_level": lambda c: level(c, "SERIALIZABLE"),
    "create_function": function,
    "run_async": by_run_async,
    "driver_connection": lambda c: (c.driver_connection is c._connection, c.dbapi.paramstyle),
    "callproc": lambda c: c.cursor().callproc("x"),
    "syntax error": lambda c: executed(c, "SELEC 1"),
    "syntax error, many": lambda c: c.cursor().executemany("SELEC 1", [()]),
    "syntax error, stream": lambda c: stream(c, "SELEC 1"),
    "violated": lambda c: executed(c, "INSERT INTO items (id) VALUES (1)"),
    "too few parameters": lambda c: executed(c, "SELECT ?"),
    "two statements": lambda c: executed(c, "SELECT 1; SELECT 2"),
    "unknown type": lambda c: c.cursor().execute("SELECT ?", (object(),)),
}


async def outcome(engine: AsyncEngine, function: Callable[[Any], Any]) -> Any:
    """Return the outcome on a connection of ``engine``: a value, or the classes of an exception."""

    def run(connection: Any) -> Any:
        raw = connection.connection.dbapi_connection
        try:
            return function(raw)
        except Exception as error:
            return type(error).__mro__

    async with engine.connect() as connection:
        return await connection.run_sync(run)


@pytest.mark.parametrize("name", SAME)
async def test_same_as_stock(name: str, path: Path, make_engine: MakeEngine) -> None:
    """The values are equal, and the exceptions have the same classes."""
    plain = make_engine()
    await create_items(plain)
    expected = await outcome(plain, SAME[name])
    await plain.dispose()
    assert await outcome(make_engine(SQLitePool), SAME[name]) == expected


@pytest.mark.parametrize("streams", [False, True])
async def test_with_and_nextset(streams: bool, swap_in: AsyncEngine) -> None:
    """Cursors are context managers, as in SQLAlchemy 2.1, and have one result, as in SQLite."""
    await create_items(swap_in)

    def use(connection: Any) -> Any:
        with connection.cursor(server_side=streams) as cursor:
            cursor.execute(IDS)
            rows = cursor.fetchall()
        with pytest.raises(AttributeError, match="nextset"):
            cursor.nextset()
        return rows, cursor._connection is connection.driver_connection

    assert await outcome(swap_in, use) == ([(1,), (2,), (3,)], True)


async def test_await_of_sqlalchemy_20(swap_in: AsyncEngine) -> None:
    """``await_()`` exists on both versions, for listeners that were written for the older one."""

    async def seven() -> int:
        return 7

    def use(connection: Any) -> Any:
        return connection.await_(seven()), connection.cursor().await_(seven())

    assert await outcome(swap_in, use) == (7, 7)
