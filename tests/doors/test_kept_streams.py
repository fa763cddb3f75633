"""A discarded connection closes its open streams, even one that is opened at the same moment."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, SleepingFunction, amounts, create_items, driver, until

IDS = text("SELECT id FROM items")

pytestmark = pytest.mark.needs_thread


async def test_a_stream_that_opens_while_its_connection_is_given_up(
    make_engine: MakeEngine, path: Path
) -> None:
    """An open statement would keep its snapshot, and SQLite then refuses to change functions.

    The dialect registers REGEXP at each connect, even on a connection that was kept.
    """
    await create_items(make_engine(WriterPool))
    sleeping = SleepingFunction()
    opened: list[sqlite3.Connection] = []

    def on_connect(connection: sqlite3.Connection) -> None:
        opened.append(connection)
        sleeping.on_connect(connection)

    engine = make_engine(SQLitePool, on_connect=on_connect, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        raw = await driver(connection)
        cursor = raw.cursor(server_side=True)
        task = asyncio.ensure_future(greenlet_spawn(cursor.execute, "SELECT sleep()"))
        await until(sleeping.inside.is_set)
        raw.give_up("it was taken back", keep=True)
        sleeping.leave.set()
        await until(lambda: len(engine.pool._kept) == 1)  # type: ignore[attr-defined]
        await task
        assert not raw.executor.transaction.streams
        with pytest.raises(sqlite3.OperationalError, match="no active connection: it was taken"):
            await greenlet_spawn(cursor.fetchone)
    async with engine.connect() as connection:
        assert (await driver(connection)).worker.connection is opened[0]
        assert len((await connection.execute(IDS)).all()) == 3


async def test_a_connection_is_closed_beside_its_stream(make_engine: MakeEngine) -> None:
    """SQLite keeps a closed connection and its transaction alive while it has a statement."""
    engine = make_engine(SQLitePool, write_timeout=2.0)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        result = await connection.stream(IDS)
        await result.fetchone()
        raw = await driver(connection)
        await greenlet_spawn(raw.close)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE items SET amount = 2 WHERE id = 1"))
    with pytest.raises(DBAPIError, match="no active connection"):
        await result.fetchone()
    assert (await amounts(engine))[0] == 2
