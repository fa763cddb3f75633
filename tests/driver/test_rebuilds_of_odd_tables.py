"""Rebuilds with unusual names, keys and databases: refused only if rows would be lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.sqlite.tokens import quoted
from tests.conftest import MakeEngine

PARENT = "CREATE TABLE authors (id INTEGER PRIMARY KEY)"
CHILD = (
    "CREATE TABLE books (id INTEGER PRIMARY KEY, "
    "author_id INTEGER REFERENCES authors ON DELETE CASCADE)"
)
ROWS = ["INSERT INTO authors VALUES (1)", "INSERT INTO books VALUES (1, 1)"]
OF_TWO = "CREATE TABLE authors (a INTEGER, b INTEGER, PRIMARY KEY (a, b))"
BY_TWO = (
    "CREATE TABLE books (id INTEGER PRIMARY KEY, x INTEGER, y INTEGER, "
    "FOREIGN KEY (x, y) REFERENCES authors ON DELETE SET NULL)"
)
AUTHOR_OF_TWO = "INSERT INTO authors VALUES (1, 1)"
DROP = "DROP TABLE authors"


@pytest.fixture
def engine(make_engine: MakeEngine) -> AsyncEngine:
    made = make_engine(SQLitePool)

    @event.listens_for(made.sync_engine, "connect")
    def _switch(connection: Any, _record: object) -> None:
        connection.cursor().execute("PRAGMA foreign_keys = ON")

    return made


def rebuild(connection: Connection, table: str, schema: str | None) -> None:
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table(table, schema, recreate="always") as batch:
        batch.add_column(sqlalchemy.Column("born", sqlalchemy.Integer))


async def execute(connection: AsyncConnection, *texts: str) -> None:
    for sql in texts:
        await connection.exec_driver_sql(sql)


async def assert_refused(
    connection: AsyncConnection, table: str = "authors", schema: str | None = None
) -> None:
    await connection.commit()
    with pytest.raises(IntegrityError, match="is refused"):
        await connection.run_sync(rebuild, table, schema)
    await connection.rollback()


@pytest.mark.parametrize(
    "name", ['a"b', "a.b", "a'b", '"x', "[z", "`q`", "Ää", "if", f"authors_{'x' * 40}"]
)
async def test_names(name: str, engine: AsyncEngine) -> None:
    """Alembic quotes them, and truncates the name of its copy after 50 characters."""
    async with engine.connect() as connection:
        for sql in (PARENT, CHILD, *ROWS):
            await execute(connection, sql.replace("authors", quoted(name)))
        await assert_refused(connection, name)
        assert await connection.scalar(text("SELECT count(*) FROM books")) == 1


@pytest.mark.parametrize(
    "shadow", ["CREATE TEMP TABLE books (id)", "CREATE TEMP VIEW books AS SELECT 1"]
)
async def test_a_temp_table_of_the_childs_name(shadow: str, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await execute(connection, PARENT, CHILD, *ROWS, shadow)
        await assert_refused(connection)
        assert await connection.scalar(text("SELECT count(*) FROM main.books")) == 1


async def test_temp_tables(engine: AsyncEngine) -> None:
    """Alembic creates the copy of a temp table in the file."""
    async with engine.connect() as connection:
        tables = (sql.replace("CREATE", "CREATE TEMP") for sql in (PARENT, CHILD))
        await execute(connection, *tables, *ROWS)
        await assert_refused(connection)
        assert await connection.scalar(text("SELECT count(*) FROM books")) == 1


@pytest.mark.parametrize("schema", ["main", "other"])
async def test_schemas(schema: str, engine: AsyncEngine, path: Path) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _attach(connection: Any, _record: object) -> None:
        connection.cursor().execute("ATTACH ? AS other", (str(path.with_name("other.db")),))

    async with engine.connect() as connection:
        for sql in (PARENT, CHILD, *ROWS):
            in_schema = re.sub("^(CREATE TABLE|INSERT INTO) ", rf"\1 {schema}.", sql)
            await execute(connection, in_schema)
        await assert_refused(connection, schema=schema)
        assert await connection.scalar(text(f"SELECT count(*) FROM {schema}.books")) == 1


async def test_a_key_of_two_columns(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await execute(
            connection, OF_TWO, BY_TWO, AUTHOR_OF_TWO, "INSERT INTO books VALUES (1, 1, 1)"
        )
        await assert_refused(connection)


async def test_factories_of_the_application(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await execute(connection, PARENT, CHILD, *ROWS)
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver.text_factory, driver.row_factory = bytes, lambda _cursor, row: list(row)
        await execute(connection, "CREATE TABLE _alembic_tmp_authors (id)")
        with pytest.raises(IntegrityError, match=r"books\.author_id"):
            await execute(connection, DROP)
        driver.text_factory, driver.row_factory = str, None


# -- harmless cases -------------------------------------------------------------------------------


async def test_a_key_that_is_null_in_part(engine: AsyncEngine) -> None:
    """Such a key refers to nothing."""
    async with engine.connect() as connection:
        await execute(
            connection, OF_TWO, BY_TWO, AUTHOR_OF_TWO, "INSERT INTO books VALUES (1, 1, NULL)"
        )
        await connection.run_sync(rebuild, "authors", None)
        assert await connection.scalar(text("SELECT x FROM books")) == 1


@pytest.mark.parametrize("column", ["", "(missing)"])
async def test_rows_that_refer_to_none(column: str, engine: AsyncEngine) -> None:
    """DROP TABLE does not change them, neither with its rows nor where the key is not a key."""
    async with engine.connect() as connection:
        await execute(connection, "PRAGMA foreign_keys = OFF", PARENT)
        await execute(connection, CHILD.replace("authors", f"authors{column}"), *ROWS)
        await execute(connection, "UPDATE books SET author_id = 7")
        await connection.commit()
        await execute(connection, "PRAGMA foreign_keys = ON")
        await connection.run_sync(rebuild, "authors", None)
        assert await connection.scalar(text("SELECT author_id FROM books")) == 7
        await connection.rollback()
