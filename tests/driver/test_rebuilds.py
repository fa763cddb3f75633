"""Tables that Alembic's batch mode rebuilds while foreign keys are on: no child row is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase, SQLitePool, WriterPool
from tests.conftest import MakeEngine

CHILDREN = text("SELECT count(*) FROM books WHERE author_id NOT NULL")
REFUSED = r"DROP TABLE authors of app\.db is refused.*books\.author_id.*run_env\(\)"


async def create(engine: AsyncEngine, action: str = "CASCADE", books: int = 2) -> None:
    async with engine.begin() as connection:
        for sql in (
            "CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT)",
            "CREATE TABLE books (id INTEGER PRIMARY KEY, "
            f"author_id INTEGER REFERENCES authors ON DELETE {action})",
            "INSERT INTO authors VALUES (1, 'Ada'), (2, 'Bo')",
        ):
            await connection.execute(text(sql))
        for _ in range(books):
            await connection.execute(text("INSERT INTO books (author_id) VALUES (1)"))


def rebuild(connection: Connection, table: str = "authors") -> None:
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table(table, recreate="always") as batch:
        batch.add_column(sqlalchemy.Column("born", sqlalchemy.Integer))


async def migrate(engine: AsyncEngine, table: str = "authors") -> None:
    async with engine.begin() as connection:
        await connection.run_sync(rebuild, table)


async def children(engine: AsyncEngine) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(CHILDREN)


def switch_on(engine: AsyncEngine) -> AsyncEngine:
    @event.listens_for(engine.sync_engine, "connect")
    def _switch(connection: Any, _record: object) -> None:
        connection.cursor().execute("PRAGMA foreign_keys = ON")

    return engine


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT"])
@pytest.mark.parametrize("pool", [WriterPool, SQLitePool])
async def test_a_rebuild_that_would_lose_rows(
    pool: type, action: str, make_engine: MakeEngine
) -> None:
    """It is refused by name, with the way out, and earlier work can be rolled back."""
    engine = switch_on(make_engine(pool))
    await create(engine, action)
    with pytest.raises(IntegrityError, match=REFUSED):
        await migrate(engine)
    assert await children(engine) == 2


async def test_in_a_function(path: Path) -> None:
    """Alembic's operations run on the connection of ``run_write()``."""

    def function(session: Session) -> None:
        rebuild(session.connection())

    async with SQLiteDatabase(path) as db:
        await create(db.writer_engine)
        with pytest.raises(IntegrityError, match=REFUSED):
            await db.run_write(function)
        assert await children(db.reader_engine) == 2


async def test_rows_of_the_table_itself(make_engine: MakeEngine) -> None:
    """The copy refers to the dropped table until it takes over that name."""
    engine = make_engine(WriterPool)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE TABLE nodes (id INTEGER PRIMARY KEY, "
                "parent INTEGER REFERENCES nodes ON DELETE CASCADE)"
            )
        )
        await connection.execute(text("INSERT INTO nodes VALUES (1, NULL), (2, 1)"))
    with pytest.raises(IntegrityError, match="nodes"):
        await migrate(engine, "nodes")
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM nodes")) == 2


# -- harmless cases -------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [None, SQLitePool])
async def test_keys_that_are_off(pool: type | None, make_engine: MakeEngine) -> None:
    """As with the stock driver, the rows stay."""
    engine = make_engine(pool)
    await create(engine)
    await migrate(engine)
    assert await children(engine) == 2


async def test_a_table_without_children(make_engine: MakeEngine) -> None:
    """No row refers to it, so it can be rebuilt with foreign keys on."""
    engine = make_engine(WriterPool)
    await create(engine, books=0)
    await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(born) FROM authors")) == 0


async def test_what_sqlite_refuses_itself(make_engine: MakeEngine) -> None:
    """Without an action, SQLite keeps the rows, and raises an error."""
    engine = make_engine(WriterPool)
    await create(engine, "NO ACTION")
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        await migrate(engine)
    assert await children(engine) == 2


@pytest.mark.parametrize("sql", ["DROP TABLE authors", 'drop table if exists main."authors"'])
async def test_a_table_that_is_dropped_for_good(sql: str, make_engine: MakeEngine) -> None:
    """Its child rows are deleted with it, as the application's schema declares."""
    engine = make_engine(WriterPool)
    await create(engine)
    async with engine.begin() as connection:
        await connection.execute(text(sql))
        assert await connection.scalar(CHILDREN) == 0
