"""Texts that the package replaces or delays: those with a syntax error raise SQLite's error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ClosureError, SQLiteDatabase, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.helpers import Item, amounts, create_items

BEGINS = [
    *("BEGIN bogus", "BEGIN CONCURRENT", "BEGIN;;", "BEGIN IMMEDIATE 1", "BEGIN 'x'", "BEGIN ("),
    *("SAVEPOINT", "SAVEPOINT a b", "SAVEPOINT select", "SAVEPOINT 'a", "SAVEPOINT a;;"),
]
ENDS = [
    *("COMMIT bogus", "COMMIT;;", "END 1", "ROLLBACK nonsense", "ROLLBACK TO", "ROLLBACK TO a b"),
    *("RELEASE", "RELEASE a b", "RELEASE SAVEPOINT", "RELEASE a;;"),
]
SETTINGS = [
    *("PRAGMA synchronous = FULL x", "PRAGMA synchronous(", "PRAGMA foreign_keys = 'ON"),
    *("PRAGMA foreign_keys = ON;;", "PRAGMA nosuch.synchronous = 1"),
]
INSERT = "INSERT INTO items VALUES (9, 0)"
DOORS = pytest.mark.parametrize("door", ["pool", "role", "writer"])


def engine_of(door: str, make_engine: MakeEngine) -> AsyncEngine:
    options = {"role": {"sqlite_role": "writer"}}.get(door, {})
    engine = make_engine(WriterPool if door == "writer" else SQLitePool)
    return engine.execution_options(**options)


async def error_of(engine: AsyncEngine, before: list[str], sql: str) -> str:
    """Execute ``sql`` after ``before``; return its error, and whether a transaction is open."""
    async with engine.connect() as connection:
        for one in before:
            await connection.exec_driver_sql(one)
        try:
            await connection.exec_driver_sql(sql)
        except (DBAPIError, sqlite3.Warning) as error:
            return str(getattr(error, "orig", error))
        return "none"


@DOORS
@pytest.mark.parametrize(
    ("before", "sql"),
    [
        *(([], sql) for sql in BEGINS),
        *((["SAVEPOINT a"], sql) for sql in [*BEGINS[6:], *ENDS]),
        *(([INSERT], sql) for sql in SETTINGS),
        *(([], sql) for sql in ["PRAGMA optimize("]),
    ],
)
async def test_the_error_is_that_of_stock(
    door: str, before: list[str], sql: str, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Nothing passes silently, and a COMMIT that is none ends no transaction."""
    engine = engine_of(door, make_engine)
    await create_items(engine)
    stock = make_engine(url=f"sqlite+aiosqlite:///{tmp_path / 'stock.db'}")
    await create_items(stock)
    expected = await error_of(stock, before, sql)
    assert expected != "none"
    assert await error_of(engine, before, sql) == expected


@DOORS
async def test_the_transaction_goes_on(door: str, make_engine: MakeEngine) -> None:
    """After the error, the savepoint and the rows are still there."""
    engine = engine_of(door, make_engine)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SAVEPOINT a")
        for sql in [*ENDS, "BEGIN bogus"]:
            with pytest.raises((DBAPIError, sqlite3.Warning)):
                await connection.exec_driver_sql(sql)
        await connection.exec_driver_sql("UPDATE items SET amount = 5 WHERE id = 1")
        await connection.exec_driver_sql("ROLLBACK TO a")
        await connection.exec_driver_sql("UPDATE items SET amount = amount + 1 WHERE id = 1")
        await connection.commit()
    assert await amounts(engine) == [1, 0, 0]


async def test_in_a_function(tmp_path: Path) -> None:
    """A function cannot end its transaction, however the text is written."""
    async with SQLiteDatabase(str(tmp_path / "app.db")) as db:
        await db.run_write_core(Item.metadata.create_all)

        def write(connection: Connection, sql: str) -> None:
            connection.exec_driver_sql(INSERT)
            connection.exec_driver_sql(sql)

        for sql in ["COMMIT bogus", "COMMIT;;", "COMMIT \x0b", "COMMIT " + "/**/ " * 20_000]:
            with pytest.raises(ClosureError):
                await db.run_write_core(write, sql)
        for sql in ["SAVEPOINT select", "RELEASE a b"]:
            with pytest.raises(OperationalError, match="syntax error"):
                await db.run_write_core(write, sql)
        assert await amounts(db.reader_engine) == []
