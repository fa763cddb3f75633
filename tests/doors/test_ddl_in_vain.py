"""DDL that has nothing to do, or fails, waits for no writer, as on stock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked, stock_engine
from tests.helpers import UPDATE_FIRST, create_items, turn_of

SCHEMA = [
    "CREATE INDEX amounts ON items (amount)",
    "CREATE VIEW seen AS SELECT * FROM items",
    "CREATE TRIGGER noticed AFTER INSERT ON items BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE found USING fts5(words)",
]
NOTHING_TO_DO = [
    "CREATE TABLE IF NOT EXISTS items (id INTEGER)",
    "CREATE TABLE IF NOT EXISTS items AS SELECT 1",
    "/* once */ create unique index if not exists main.amounts ON items (amount);",
    "CREATE VIEW IF NOT EXISTS seen AS SELECT 1",
    "CREATE TRIGGER IF NOT EXISTS noticed AFTER INSERT ON items BEGIN SELECT 2; END",
    "CREATE VIRTUAL TABLE IF NOT EXISTS found USING fts5(words)",
    "DROP TABLE IF EXISTS nowhere",
    "DROP INDEX IF EXISTS nowhere",
    "DROP TRIGGER IF EXISTS nowhere",
    "DROP VIEW IF EXISTS nowhere",
]
FAILING = [
    "ALTER TABLE items ADD COLUMN amount",
    "ALTER TABLE nowhere ADD COLUMN amount",
    "CREATE TABLE items (id INTEGER)",
    "DROP TABLE nowhere",
]


@pytest.fixture(params=["stock", "SQLitePool"])
async def engine(
    request: pytest.FixtureRequest, make_engine: MakeEngine, path: Path
) -> AsyncEngine:
    """Return an engine with a table, and with one object of each other kind."""
    await create_items(made := make_engine(SQLitePool))
    async with made.begin() as connection:
        for sql in SCHEMA:
            await connection.execute(text(sql))
    return stock_engine(make_engine, path) if request.param == "stock" else made


async def run_beside_a_writer(
    engine: AsyncEngine, path: Path, sql: str, *, level: str = "SERIALIZABLE"
) -> Any:
    """Execute ``sql`` while another task has the write turn, which it keeps until the end."""
    written, done = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            written.set()
            await done.wait()

    writer = asyncio.create_task(write())
    await written.wait()
    assert is_locked(path)
    try:
        async with engine.execution_options(isolation_level=level).begin() as connection:
            result = await connection.exec_driver_sql(sql)
            return result.rowcount, result.returns_rows
    finally:
        done.set()
        await writer


@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
@pytest.mark.parametrize("sql", NOTHING_TO_DO)
async def test_nothing_to_do(engine: AsyncEngine, path: Path, sql: str, level: str) -> None:
    """The writer goes on only afterwards: waiting for it would last until the time-out."""
    assert await run_beside_a_writer(engine, path, sql, level=level) == (-1, False)


@pytest.mark.parametrize("sql", FAILING)
async def test_it_fails_at_once(engine: AsyncEngine, path: Path, sql: str) -> None:
    """Programs add a column whenever they start, and ignore that it exists."""
    with pytest.raises(DBAPIError, match=r"duplicate column|no such table|already exists"):
        await run_beside_a_writer(engine, path, sql)


async def test_afterwards_the_transaction_reads(engine: AsyncEngine, path: Path) -> None:
    """It has neither the lock nor the turn, and acquires both with the first write."""
    async with engine.connect() as connection:
        await connection.exec_driver_sql(NOTHING_TO_DO[0])
        assert not is_locked(path)
        assert turn_of(path).holder is None
        await connection.execute(UPDATE_FIRST)
        assert is_locked(path)
        await connection.exec_driver_sql(NOTHING_TO_DO[0])
        await connection.rollback()


async def test_what_has_something_to_do_is_done(engine: AsyncEngine) -> None:
    """The second time around, the same text has nothing to do."""
    for _ in range(2):
        async with engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS more (id INTEGER)")
            await connection.exec_driver_sql("DROP VIEW IF EXISTS seen")
    async with engine.connect() as connection:
        names = await connection.scalars(text("SELECT name FROM sqlite_master"))
        assert {"more", "seen"} & set(names) == {"more"}


async def test_the_table_is_created_while_it_waits(make_engine: MakeEngine, path: Path) -> None:
    """Of two tasks that find a table missing, the second waits, and then has nothing to do."""
    engine = make_engine(SQLitePool)
    sql = "CREATE TABLE IF NOT EXISTS items (id INTEGER)"
    async with engine.begin() as first:
        await first.exec_driver_sql(sql)

        async def second() -> None:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(sql)

        task = asyncio.create_task(second())
        while not turn_of(path).waiting:
            await asyncio.sleep(0)
    await task
