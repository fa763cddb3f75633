"""Connections that are closed after their last statement was interrupted."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sa_sqlite_pool import SQLitePool, StatementTimeout, WriterPool
from tests.conftest import MakeEngine
from tests.helpers import create_items, files_beside, until

pytestmark = pytest.mark.needs_thread

ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
)


async def cancelled(connection: AsyncConnection, begun: threading.Event) -> None:
    task = asyncio.create_task(connection.execute(ENDLESS))
    await until(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def timed_out(connection: AsyncConnection, _begun: threading.Event) -> None:
    with pytest.raises(StatementTimeout):
        await connection.execute(ENDLESS, execution_options={"statement_timeout": 0.02})


@pytest.mark.parametrize("interrupt", [cancelled, timed_out])
@pytest.mark.parametrize("pool", [SQLitePool, WriterPool])
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
async def test_the_log_is_moved(
    make_engine: MakeEngine,
    path: Path,
    pool: type,
    level: str,
    interrupt: Callable[[AsyncConnection, threading.Event], Awaitable[None]],
) -> None:
    """SQLite does so on closing the last connection, which the interrupt would stop, too."""
    begun = threading.Event()

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.create_function("begun", 0, begun.set)

    engine = make_engine(pool, on_connect=on_connect)
    await create_items(engine)
    async with engine.execution_options(isolation_level=level).connect() as connection:
        await interrupt(connection, begun)
    await engine.dispose()
    await until(lambda: files_beside(path) == {path.name})  # after a rollback in a thread
