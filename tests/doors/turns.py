"""Whether a statement requests the write turn, counted rather than timed; stock as a control."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import CursorResult, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from tests.conftest import MakeEngine
from tests.helpers import turn_of


@asynccontextmanager
async def turn_taken(path: Path) -> AsyncIterator[Callable[[], int]]:
    """Hold the turn in another task; yield a function that counts the requests for it since."""
    turn, taken, leave = turn_of(path), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        permit = await turn.acquire(30)
        taken.set()
        await leave.wait()
        turn.release(permit)

    holding = asyncio.create_task(hold())
    await taken.wait()
    before = turn.line.arrivals
    try:
        yield lambda: turn.line.arrivals - before
    finally:
        leave.set()
        await holding


async def outcome(connection: AsyncConnection | AsyncSession, sql: str) -> Any:
    """Return the rows of a statement, or SQLite's error."""
    try:
        result = await connection.execute(text(sql))
    except Exception as error:
        return str(getattr(error, "orig", error))
    assert isinstance(result, CursorResult)
    return [tuple(row) for row in result] if result.returns_rows else None


async def outcomes(connection: AsyncConnection, statements: Iterable[str]) -> list[Any]:
    """Return the outcomes of several statements, executed one after the other."""
    return [await outcome(connection, sql) for sql in statements]


def stock_engine(make_engine: MakeEngine, path: Path) -> AsyncEngine:
    """An engine of SQLAlchemy alone, with a log, and transactions as its documentation shows.

    "Enabling Non-Legacy SQLite Transactional Modes with the sqlite3 or aiosqlite driver":
    https://docs.sqlalchemy.org/en/20/dialects/sqlite.html
    """
    engine = make_engine(url=f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def use_log(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA busy_timeout = 0")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def is_locked(path: Path) -> bool:
    """Return whether SQLite's write lock is held, as another program finds it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        # The lock of a connection that closes last and moves the log does not count: it is waited
        # for, and cannot be acquired while this connection is open.
        other.execute("SELECT count(*) FROM sqlite_master").fetchone()
        other.execute("PRAGMA busy_timeout = 0")
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return True
        other.execute("ROLLBACK")
        return False
