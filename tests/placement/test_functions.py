"""Functions of the application never run on the event loop."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import SQLiteDatabase, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.helpers import create_items, driver
from tests.placement.work import COUNT, LEARNING, READ, WRITE, Run, Trace, learn, run


class Called:
    """An SQL function that records for each call whether it runs on the loop."""

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
    """It runs in the thread, once per statement, wherever the statement uses it."""
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


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_it_is_not_forgotten(make_engine: MakeEngine, poolclass: type) -> None:
    """sqlite3 keeps it compiled; texts that are looked up but never compiled do not displace it."""
    called = Called()
    engine = make_engine(poolclass, on_connect=lambda c: c.create_function("mine", 1, called))
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT mine(1)"))
        for number in range(600):
            with pytest.raises(OperationalError, match="no such table"):
                await connection.execute(text(f"SELECT * FROM missing_{number}"))
            await connection.rollback()
        for _ in range(3):
            await connection.execute(text("SELECT mine(1)"))
    assert called.inline == [False] * 4


async def test_a_function_that_replaces_one_of_sqlites(
    make_engine: MakeEngine, trace: Trace
) -> None:
    """This also holds if the statement is known to be short."""
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
    """It is also executed there, so SQLite has already compiled the statement."""
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
    """A statement known to be short is compiled again, so that the authorizer sees it in time."""
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
    """SQLite does not report its use, so nothing runs inline."""

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.create_collation("mine", lambda a, b: (a > b) - (a < b))
        trace.on_connect(connection)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    await learn(engine, READ)
    assert not any(inline for sql, inline in trace.runs if sql == READ)


async def test_a_converter_of_the_application(make_engine: MakeEngine, trace: Trace) -> None:
    """It is Python code and may do anything, so nothing runs inline."""
    engine = make_engine(SQLitePool, connect_args={"detect_types": 1}, on_connect=trace.on_connect)
    await create_items(engine)
    await learn(engine, READ)
    assert not any(inline for sql, inline in trace.runs if sql == READ)


@pytest.fixture
async def db(path: Path, trace: Trace) -> AsyncIterator[SQLiteDatabase]:
    """Provide a facade with one reader and the table ``items``."""
    async with SQLiteDatabase(path, readers=1, on_connect=trace.on_connect) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)
        yield db


async def test_a_statement_of_a_function_of_run_write(path: Path, trace: Trace) -> None:
    """The statement was compiled there, and calls a function of the application."""
    called = Called()
    async with SQLiteDatabase(
        path, on_connect=lambda connection: connection.create_function("mine", 0, called)
    ) as db:
        await run(db.writer_engine, "SELECT 1")
        await db.run_write_core(lambda connection: connection.scalar(text("SELECT mine()")))
        for _ in range(2 * LEARNING):
            await run(db.writer_engine, "SELECT mine()")
    assert called.inline == [False] * (1 + 2 * LEARNING)


@pytest.mark.parametrize("raw", [False, True])
async def test_a_function_registered_in_one(db: SQLiteDatabase, raw: bool) -> None:
    """It replaces one of SQLite's, on SQLAlchemy's connection or on the one beneath."""
    called, sql = Called(), "SELECT abs(amount) FROM items WHERE id = 1"
    await learn(db.writer_engine, sql)

    def register(connection: Connection) -> None:
        adapted: Any = connection.connection.dbapi_connection
        (adapted.driver_connection if raw else adapted).create_function("abs", 1, called)

    await db.run_write_core(register)
    for _ in range(LEARNING):
        assert await run(db.writer_engine, sql) == [[1]]
    assert called.inline == [False] * LEARNING


async def test_a_setting_changed_in_one(db: SQLiteDatabase, trace: Trace) -> None:
    """From then on, COMMIT may run a checkpoint."""
    with trace.recorded() as runs:
        await run(db.writer_engine, WRITE)
    assert runs[-1] == Run("COMMIT", True)
    setting = text("PRAGMA wal_autocheckpoint = 1000")
    await db.run_write_core(lambda connection: connection.execute(setting).all())
    for _ in range(LEARNING):
        with trace.recorded() as runs:
            await run(db.writer_engine, WRITE)
        assert runs[-1] == Run("COMMIT", False)


async def test_the_budget_after_one(db: SQLiteDatabase, trace: Trace) -> None:
    """The function has used the connection, and its progress handler."""
    count = text(COUNT.format(":most"))
    places = []
    async with db.reader_engine.connect() as connection:
        for most in (10, 10):
            await connection.execute(count, {"most": most})
    await db.run_read_core(lambda connection: connection.execute(text("SELECT 1")).all())
    async with db.reader_engine.connect() as connection:
        with trace.recorded() as runs:
            assert await connection.scalar(count, {"most": 50_000}) == 50_000
        places += [inline for sql, inline in runs if "RECURSIVE" in sql]
    assert places == [True, False]
