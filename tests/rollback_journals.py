"""Engines without WAL, through each door, and the waits of a COMMIT there."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from sa_sqlite_pool import (
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
)
from tests.conftest import MakeEngine
from tests.helpers import (
    UPDATE_FIRST,
    create_items,
    until,
)

Connection = AsyncConnection | AsyncSession


READ = text("SELECT sum(amount) FROM items")


MODES = ["TRUNCATE", "DELETE", "PERSIST"]


class Door:
    """One door of the package, without WAL."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self.writer = writer
        self.reader = reader

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        async with self.writer.connect() as connection:
            writer = await connection.execution_options(sqlite_role="writer")
            async with writer.begin():
                yield writer

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        async with self.reader.connect() as connection:
            yield await connection.execution_options(sqlite_role="reader")

    async def add(self) -> None:
        async with self.write() as writer:
            await writer.execute(UPDATE_FIRST)

    async def total(self) -> int:
        async with self.read() as reader:
            return int(await reader.scalar(READ) or 0)


@pytest.fixture(params=["facade", "engines", "swap-in"])
async def make_door(
    request: pytest.FixtureRequest, make_engine: MakeEngine, path: Path
) -> AsyncIterator[Any]:
    """Provide ``await make_door(...)``: a door with three items."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(mode: str = "TRUNCATE", **options: Any) -> Door:
            options["pragmas"] = {"journal_mode": mode}
            if request.param == "facade":
                db = await stack.enter_async_context(SQLiteDatabase(path, **options))
                door = Door(db.writer_engine, db.reader_engine)
            elif request.param == "engines":
                door = Door(make_engine(WriterPool, **options), make_engine(ReaderPool, **options))
            else:
                engine = make_engine(SQLitePool, **options)
                door = Door(engine, engine)
            await create_items(door.writer)
            async with door.read(), door.read(), door.read():
                pass  # opens the connection, so no later step has to
            return door

        yield make


async def until_pending(door: Door) -> None:
    """Wait until a COMMIT keeps readers out."""
    path = door.writer.url.database
    assert path is not None
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as outsider:

        def refused() -> bool:
            try:
                outsider.execute("SELECT * FROM items").fetchall()
            except sqlite3.OperationalError:
                return True
            return False

        await until(refused)
