"""Helpers for tests of ``engine.begin()``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.sessions.lean import LeanEngine
from tests.helpers import amounts, turn_of, until, until_free


def own(engine: AsyncEngine) -> AsyncEngine:
    assert isinstance(engine, LeanEngine)
    return engine


def sqlalchemys(engine: AsyncEngine) -> AsyncEngine:
    return AsyncEngine(engine.sync_engine)


async def nothing_held(db: SQLiteDatabase, path: Path) -> None:
    """Assert that no connection is checked out, the turn is free, and the next task is served."""
    pool = db.writer_engine.pool
    assert isinstance(pool, FairPool)
    await until_free(path)
    await until(lambda: len(pool.checkouts) == 0)
    assert pool.checkedout() == 0
    assert turn_of(path).waiting == 0
    async with db.writer_engine.begin() as connection:
        await connection.execute(text("SELECT 1"))


async def amount(db: SQLiteDatabase) -> int:
    return (await amounts(db.reader_engine))[0]


def on_begin(engine: AsyncEngine, listener: Callable[[Connection], object]) -> Callable[[], None]:
    """Register the listener, and return a function that removes it."""
    event.listen(engine.sync_engine, "begin", listener)
    return lambda: event.remove(engine.sync_engine, "begin", listener)
