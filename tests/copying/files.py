"""SQLite files, the servers to which they are copied, and the content of both."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, Table, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import CopyReport, Misfits, MisfitsError, SQLiteDatabase, copy_to
from tests.postgresql import App

Values = Mapping[Table, Sequence[Mapping[str, Any]]]


def make_file(path: Path, metadata: MetaData, rows: Values, *statements: str) -> Path:
    """Create the tables of ``metadata`` in a file, and fill them as an application does."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for table, values in rows.items():
            if values:
                connection.execute(insert(table), values)
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
    return path


def execute(path: Path, script: str) -> Path:
    """Execute SQL on a file, which is created if it does not exist."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(script)
    return path


@asynccontextmanager
async def engine_of(app: App, **options: Any) -> AsyncIterator[AsyncEngine]:
    """Provide an engine on the server during the block."""
    engine = create_async_engine(app.url(), **options)
    try:
        yield engine
    finally:
        await engine.dispose()


async def copied(path: Path, app: App, metadata: MetaData, **options: Any) -> CopyReport:
    """Copy a file to the server."""
    async with SQLiteDatabase(path) as db, engine_of(app) as engine:
        return await copy_to(db, engine, metadata, **options)


async def misfits_in(
    path: Path, app: App, metadata: MetaData, *, dry_run: bool = True
) -> Sequence[Misfits]:
    """Return the values that do not fit, from a file that is refused."""
    with pytest.raises(MisfitsError) as caught:
        await copied(path, app, metadata, dry_run=dry_run)
    return caught.value.report.misfits


async def rows_of(app: App, table: Table) -> list[tuple[Any, ...]]:
    """Return the rows that an application reads on the server."""
    async with engine_of(app) as engine, engine.connect() as connection:
        found = await connection.execute(select(table).order_by(*table.primary_key))
        return [tuple(row) for row in found]


def rows_in(path: Path, table: Table) -> list[tuple[Any, ...]]:
    """Return the rows that an application reads in the file."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = connection.execute(select(table).order_by(*table.primary_key)).all()
    engine.dispose()
    return [tuple(row) for row in found]


def tables_on(app: App) -> str:
    """Return the names of all tables, types and sequences of the application on the server."""
    return app.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace"
    )
