"""Forbidden writes: nothing that a reader executes can change any database file."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sa_sqlite_pool import (
    ConfigurationError,
    ForbiddenWriteError,
    ReaderPool,
    SQLitePool,
    WriterPool,
)
from tests.conftest import MakeEngine
from tests.helpers import create_items, files_beside

WAYS_ROUND = [
    "INSERT INTO items (amount) VALUES (1)",
    "UPDATE items SET amount = 1",
    "DELETE FROM items",
    "REPLACE INTO items (id, amount) VALUES (1, 1)",
    "WITH a AS (SELECT 9 AS id) INSERT INTO items (id, amount) SELECT id, 0 FROM a",
    "UPDATE items SET amount = 1 RETURNING id",
    "CREATE TABLE other (id)",
    "CREATE INDEX by_amount ON items (amount)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE VIRTUAL TABLE search USING fts5(body)",
    "DROP TABLE items",
    "ALTER TABLE items ADD COLUMN more",
    "ANALYZE",
    "REINDEX",
    "VACUUM",
    "VACUUM INTO '{directory}/copy.db'",
    "ATTACH '{directory}/attached.db' AS attached",
    "BEGIN IMMEDIATE",
    "BEGIN EXCLUSIVE",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_checkpoint",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA schema_version = 7",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA incremental_vacuum",
    "EXPLAIN PRAGMA journal_mode = DELETE",
]


@pytest.fixture(params=["reader engine", "swap-in, sqlite_role=reader"])
def any_reader(request: pytest.FixtureRequest, make_engine: MakeEngine) -> AsyncEngine:
    if request.param == "reader engine":
        return make_engine(ReaderPool)
    return make_engine(SQLitePool).execution_options(sqlite_role="reader")


def fingerprint(path: Path) -> str:
    wal = path.with_name(path.name + "-wal")
    return hashlib.sha256(path.read_bytes() + wal.read_bytes()).hexdigest()


@pytest.mark.parametrize("sql", WAYS_ROUND)
async def test_every_way_round_is_refused(
    path: Path, writer: AsyncEngine, any_reader: AsyncEngine, sql: str
) -> None:
    """It is refused, by SQLite's authorizer or earlier, with the remedy; no file has changed."""
    await create_items(writer)
    async with any_reader.connect() as connection:
        await connection.execute(text("SELECT * FROM items"))
        before, files = fingerprint(path), files_beside(path)
        with pytest.raises(OperationalError, match="use a writer session") as caught:
            await connection.execute(text(sql.format(directory=path.parent)))
        assert isinstance(caught.value.orig, ForbiddenWriteError)
        await connection.commit()
        assert (fingerprint(path), files_beside(path)) == (before, files)
        assert len((await connection.execute(text("SELECT * FROM items"))).all()) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = 1",
        "PRAGMA optimize",
        "PRAGMA temp_store = MEMORY",
        "PRAGMA cache_size = -1000",
    ],
)
async def test_what_opens_no_way_round_is_allowed(
    path: Path, writer: AsyncEngine, any_reader: AsyncEngine, sql: str
) -> None:
    """Settings of the reader's own connection are allowed, and do not let it write."""
    await create_items(writer)
    async with any_reader.connect() as connection:
        await connection.execute(text("SELECT * FROM items"))
        before = fingerprint(path)
        await connection.execute(text(sql))
        with pytest.raises(OperationalError, match="use a writer session"):
            await connection.execute(text("DELETE FROM items"))
        with pytest.raises(OperationalError):  # the table "may not be modified", or the file
            await connection.execute(text("UPDATE sqlite_master SET sql = ''"))
        assert fingerprint(path) == before


async def test_what_was_compiled_as_a_writer_is_refused_as_a_reader(swap_in: AsyncEngine) -> None:
    """The authorizer is called once per text, and yet the cached statement is refused."""
    await create_items(swap_in)
    statement = text("UPDATE items SET amount = 1 WHERE id = 1")
    async with swap_in.connect() as connection:
        await connection.execute(statement)
        await connection.rollback()
        await connection.execution_options(sqlite_role="reader")
        with pytest.raises(OperationalError, match="cannot change a database"):
            await connection.execute(statement)


async def test_mode_ro_refuses_even_without_the_guard(
    writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """A reader engine's raw connection is opened read-only, so SQLite itself refuses writes."""
    await create_items(writer)
    async with reader.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
        with pytest.raises(Exception, match="readonly database"):
            await raw.execute("DELETE FROM items")


async def test_temp_tables_are_allowed(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """Temp tables, indexes, views and triggers belong to the connection, not to a file."""
    await create_items(writer)

    async def use(connection: AsyncConnection) -> int:
        for sql in (
            "CREATE TEMP TABLE chosen (id INTEGER, note)",
            "CREATE INDEX temp.by_id ON chosen (id)",
            "INSERT INTO chosen SELECT id, '' FROM items",
            "CREATE TEMP TRIGGER t AFTER UPDATE ON chosen BEGIN DELETE FROM chosen; END",
            "CREATE TEMP VIEW v AS SELECT * FROM chosen",
            "ALTER TABLE chosen ADD COLUMN more",
            "UPDATE chosen SET note = 'x' WHERE id = 0",
        ):
            await connection.execute(text(sql))
        return int((await connection.execute(text("SELECT count(*) FROM v"))).scalar_one())

    async with reader.connect() as connection:
        assert await use(connection) == 3
        await connection.commit()
        assert (await connection.execute(text("SELECT count(*) FROM chosen"))).scalar_one() == 3


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN INSERT INTO items (amount) VALUES (1)",
        "EXPLAIN QUERY PLAN DELETE FROM items",
        "PRAGMA table_info(items)",
        "PRAGMA foreign_key_list('items')",
        "PRAGMA user_version",
        "PRAGMA journal_mode",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
        "PRAGMA cache_size = -1000",
        "PRAGMA integrity_check",
    ],
)
async def test_what_only_asks_is_allowed(
    writer: AsyncEngine, any_reader: AsyncEngine, sql: str
) -> None:
    """Queries, EXPLAIN and settings of the reader's own connection are allowed."""
    await create_items(writer)
    async with any_reader.connect() as connection:
        await connection.execute(text(sql))


async def test_a_reader_engine_cannot_be_asked_to_write(reader: AsyncEngine) -> None:
    """The error for ``sqlite_role="writer"`` on a reader engine names the engine to use."""
    with pytest.raises(
        ConfigurationError, match=r"not available on the reader engine of app\.db; use the wri"
    ):
        async with reader.execution_options(sqlite_role="writer").connect() as connection:
            await connection.execute(text("SELECT 1"))


async def test_readers_of_a_shared_memory_database_cannot_write() -> None:
    """``mode=ro`` is not available in memory, where the authorizer alone refuses writes."""
    url = "sqlite+aiosqlite:///file:/forbidden?vfs=memdb&uri=true"
    writer = create_async_engine(url, poolclass=WriterPool)
    reader = create_async_engine(url, poolclass=ReaderPool)
    try:
        await create_items(writer)
        async with reader.connect() as connection:
            assert len((await connection.execute(text("SELECT * FROM items"))).all()) == 3
            await connection.rollback()
            with pytest.raises(DBAPIError, match="cannot change a database"):
                await connection.execute(text("DELETE FROM items"))
    finally:
        await reader.dispose()
        await writer.dispose()
