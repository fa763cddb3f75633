"""Functions of the application never run on the event loop."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from sa_sqlite_pool import (
    SQLitePool,
    WriterPool,
)
from tests.conftest import MakeEngine
from tests.helpers import create_items, driver
from tests.placement.work import LEARNING, READ, Trace, learn, run


class Called:
    """A function of SQL that counts its calls, each in a thread."""

    def __init__(self) -> None:
        self.inline: list[bool] = []
        self._loop = threading.get_ident()

    def __call__(self, *_: object) -> int:
        self.inline.append(threading.get_ident() == self._loop)
        return 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT mine(amount) FROM items WHERE id = 1",
        "SELECT * FROM viewed",
        "UPDATE items SET amount = mine(1) WHERE id = 1",
        "INSERT INTO triggering VALUES (1)",
    ],
)
@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_a_function_of_the_application(
    make_engine: MakeEngine, poolclass: type, sql: str, trace: Trace
) -> None:
    """It is called in the thread, as often as the statement is run, wherever it stands."""
    called = Called()
    engine = make_engine(poolclass, on_connect=lambda c: c.create_function("mine", 1, called))
    await create_items(engine)
    await run(
        engine,
        "CREATE VIEW viewed AS SELECT mine(1) AS one",
        "CREATE TABLE triggering (n)",
        "CREATE TRIGGER t AFTER INSERT ON triggering BEGIN SELECT mine(new.n); END",
    )
    for _ in range(2 * LEARNING):
        await run(engine, sql)
    assert called.inline == [False] * (2 * LEARNING)


async def test_a_function_that_replaces_one_of_sqlites(
    make_engine: MakeEngine, trace: Trace
) -> None:
    """Also where the statement is known, and short."""
    engine, called = make_engine(SQLitePool, pool_size=1, max_overflow=0), Called()
    await create_items(engine)
    sql = "SELECT abs(amount) FROM items WHERE id = 2"
    await learn(engine, sql)
    async with engine.connect() as connection:
        (await driver(connection)).create_function("abs", 1, called)
    for _ in range(LEARNING):
        assert await run(engine, sql) == [[1]]
    assert called.inline == [False] * LEARNING


async def test_a_function_registered_on_the_raw_connection(
    make_engine: MakeEngine, trace: Trace
) -> None:
    """And run there, so that SQLite has compiled the statement before."""
    engine, called = make_engine(SQLitePool, pool_size=1, max_overflow=0), Called()
    await create_items(engine)
    await learn(engine, READ)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.create_function("mine", 0, called)
        await raw.execute_fetchall("SELECT mine()")
    for _ in range(LEARNING):
        await run(engine, "SELECT mine()", READ)
    assert called.inline == [False] * (1 + LEARNING)


async def test_a_view_that_begins_to_call_one(make_engine: MakeEngine, trace: Trace) -> None:
    """A statement that is known to be short is compiled anew: the guard sees it in time."""
    called = Called()
    engine = make_engine(
        SQLitePool,
        pool_size=1,
        max_overflow=0,
        on_connect=lambda c: c.create_function("mine", 1, called),
    )
    await create_items(engine)
    await run(engine, "CREATE VIEW viewed AS SELECT 1 AS one")
    await learn(engine, "SELECT one FROM viewed")
    await run(engine, "DROP VIEW viewed", "CREATE VIEW viewed AS SELECT mine(1) AS one")
    for _ in range(LEARNING):
        assert await run(engine, "SELECT one FROM viewed") == [[1]]
    assert called.inline == [False] * LEARNING


async def test_a_collation_of_the_application(make_engine: MakeEngine, trace: Trace) -> None:
    """SQLite does not tell where one is used: nothing runs inline."""

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.create_collation("mine", lambda a, b: (a > b) - (a < b))
        trace.on_connect(connection)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    await learn(engine, READ)
    assert not any(inline for sql, inline in trace.runs if sql == READ)


async def test_a_converter_of_the_application(make_engine: MakeEngine, trace: Trace) -> None:
    """It is Python code, and may do what it likes."""
    engine = make_engine(SQLitePool, connect_args={"detect_types": 1}, on_connect=trace.on_connect)
    await create_items(engine)
    await learn(engine, READ)
    assert not any(inline for sql, inline in trace.runs if sql == READ)
