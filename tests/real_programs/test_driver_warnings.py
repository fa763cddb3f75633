"""Warnings of ``sqlite3``, which applications filter by the calling module, aiosqlite's."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from tests.conftest import MakeEngine

ITEMS = Table("items", MetaData(), Column("id", Integer, primary_key=True), Column("name", Integer))
BY_NAME = text("SELECT * FROM items WHERE name = :name")
INSERT = text("INSERT INTO items (name) VALUES (:name)")


class Old:
    """A value that is adapted with a warning, as ``datetime`` is since Python 3.12."""


def adapt(_: Old) -> int:
    warnings.warn("this adapter is deprecated", DeprecationWarning, stacklevel=2)
    return 1


@pytest.fixture
def only_of_aiosqlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the filters of such an application: all are errors except those of one module."""
    adapters: dict[Any, Any] = sqlite3.adapters
    monkeypatch.setitem(adapters, (Old, sqlite3.PrepareProtocol), adapt)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        warnings.filterwarnings("ignore", module=r"aiosqlite\.core")
        yield


async def use(engine: AsyncEngine) -> int:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE items (id INTEGER PRIMARY KEY, name INTEGER)"))
        await connection.execute(INSERT, {"name": Old()})
        await connection.execute(INSERT, [{"name": Old()}, {"name": Old()}])
        for _ in range(5):  # in the thread, and then on the loop
            await connection.execute(BY_NAME, {"name": Old()})
        streamed = await connection.stream(text("SELECT name = :name FROM items"), {"name": Old()})
        return sum([row[0] async for row in streamed])


@pytest.mark.usefixtures("only_of_aiosqlite")
@pytest.mark.parametrize("pool", [None, SQLitePool])
@pytest.mark.parametrize("placement", ["auto", "inline"])
async def test_statements(pool: Any, placement: str, make_engine: MakeEngine) -> None:
    """This applies to one statement, executemany and a stream, wherever they run."""
    engine = make_engine(pool, placement=placement) if pool else make_engine(None)
    assert await use(engine) == 3


@pytest.mark.usefixtures("only_of_aiosqlite")
@pytest.mark.parametrize("named", [False, True])
async def test_temp_tables(named: bool, make_engine: MakeEngine) -> None:
    """SQLite is asked what they write in advance, without their values, which is no write."""
    values: Any = {"name": Old()} if named else (Old(),)
    sql = f"INSERT INTO staged VALUES ({':name' if named else '?'})"
    engine = make_engine(SQLitePool)
    async with engine.connect() as connection, engine.connect() as other:
        await connection.exec_driver_sql("CREATE TEMP TABLE staged (name INTEGER)")
        await connection.exec_driver_sql(sql, values)
        await other.exec_driver_sql("CREATE TABLE items (id)")  # the turn is free
        assert await connection.scalar(text("SELECT name FROM staged")) == 1


@pytest.mark.usefixtures("only_of_aiosqlite")
async def test_the_facade(path: Path) -> None:
    """This includes its prepared reads, which fetch as many rows as they need."""
    async with SQLiteDatabase(path) as db:
        await use(db.writer_engine)
        by_name = db.prepare(select(ITEMS.c.id).where(ITEMS.c.name == bindparam("name")))
        for _ in range(5):
            assert (await by_name.first(name=Old())) == (1,)
            assert len(await by_name.all(name=Old())) == 3


def test_the_application_s_own(only_of_aiosqlite: None) -> None:
    """Warnings from elsewhere are still errors here."""
    memory = closing(sqlite3.connect(":memory:"))
    with memory as connection, pytest.raises(DeprecationWarning):
        connection.execute("SELECT ?", (Old(),))
