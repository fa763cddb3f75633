"""Messages name the application line that requested something, whether or not it had to wait."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, create_items, driver, turn_of, until_waiting

ONE = {"pool_size": 1, "max_overflow": 0}


def the_next_line() -> str:
    return f"{Path(__file__).name}:{sys._getframe(1).f_lineno + 1}"


async def asked_at(connection: AsyncConnection) -> str:
    permit = (await driver(connection)).executor.transaction.permit
    assert permit is not None
    return str(permit.asked_at)


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool, WriterPool])
async def test_a_checkout(make_engine: MakeEngine, poolclass: type) -> None:
    """Both the first checkout, which opens a connection, and the next one are located."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass)
    for _ in range(2):
        line = the_next_line()
        async with engine.connect() as connection:
            assert await asked_at(connection) == line
            assert f"checked out at {line}>" in repr(await driver(connection))
        line = the_next_line()
        async with engine.begin() as connection:
            assert await asked_at(connection) == line


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool, WriterPool])
async def test_a_checkout_that_waits(make_engine: MakeEngine, poolclass: type) -> None:
    """The line is that of the waiting task, not of the task that held the connection before."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass, **ONE)
    asked: list[str] = []

    async def wait() -> None:
        asked.append(the_next_line())
        async with engine.connect() as connection:
            asked.append(await asked_at(connection))

    async with engine.connect():
        waiting = asyncio.create_task(wait())
        await until_waiting(1, engine.pool)
    await waiting
    assert asked[1] == asked[0]


async def test_a_checkout_within_run_sync(reader: AsyncEngine, writer: AsyncEngine) -> None:
    """The line is that inside the function, not that of ``run_sync()``."""
    await create_items(writer)

    def ask(connection: Connection) -> tuple[str, str]:
        line = the_next_line()
        with connection.engine.connect() as another:
            raw = another.connection.dbapi_connection
            assert isinstance(raw, SQLiteConnection)
            permit = raw.executor.transaction.permit
            assert permit is not None
            return line, str(permit.asked_at)

    async with reader.connect() as connection:
        line, asked = await connection.run_sync(ask)
    assert asked == line


async def test_a_session(db: SQLiteDatabase) -> None:
    """The line is that of the session's first statement, which needs a connection."""
    await create_items(db.writer_engine)
    async with db.read() as session:
        line = the_next_line()
        await session.execute(text("SELECT 1"))
        assert await asked_at(await session.connection()) == line


async def test_the_turn(swap_in: AsyncEngine, path: Path) -> None:
    """The line is that of a swap-in connection's first write, whether or not it has waited."""
    await create_items(swap_in)
    asked: list[str] = []

    async def write() -> None:
        async with swap_in.begin() as connection:
            await connection.execute(text("SELECT 1"))
            asked.append(the_next_line())
            await connection.execute(UPDATE_FIRST)
            holder = turn_of(path).holder
            assert holder is not None
            asked.append(str(holder.asked_at))
            await until_waiting(waiting.pop(), turn_of(path))

    waiting = [0, 1]
    await asyncio.gather(write(), write())
    assert asked[1] == asked[0]
    assert asked[3] == asked[2] == asked[0]
