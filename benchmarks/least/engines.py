"""Engines over direct ``sqlite3``, of SQLAlchemy's asyncio classes and of those of this package.

The latter are SQLAlchemy's, too, but reuse their greenlets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, StaticPool, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

import sa_sqlite_pool

from ..ways.asynchronous import Connections, Sessions
from ..ways.engines import BUSY_TIMEOUT_S, Pragmas, setting
from ..ways.steps import Operation
from .dialect import READS, WRITES
from .pools import Kept


def _engine(driver: str, reuses_greenlets: bool, database: Path, pragmas: Pragmas) -> AsyncEngine:
    create: Callable[..., AsyncEngine] = (
        sa_sqlite_pool.create_async_engine if reuses_greenlets else create_async_engine
    )
    engine = create(
        URL.create(driver, database=str(database)),
        poolclass=Kept,
        pool_reset_on_return=None,  # blocks roll back what they have not committed
        awaits=not reuses_greenlets,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )
    event.listen(engine.sync_engine, "connect", setting(pragmas))
    return engine


reads = partial(_engine, READS, True)
reads_of_sqlalchemy = partial(_engine, READS, False)
writes = partial(_engine, WRITES, True)
writes_of_sqlalchemy = partial(_engine, WRITES, False)


class InLaps(Connections):
    """Reads, each of which lets all other tasks run for one lap of the event loop.

    This is done here, not behind the interface: it costs least before a greenlet has begun.
    """

    async def read(self, operation: Operation, key: int) -> None:
        await asyncio.sleep(0)
        await super().read(operation, key)


class SessionsInLaps(Sessions):
    """The same, with a session of SQLAlchemy's asyncio classes."""

    async def read(self, operation: Operation, key: int) -> None:
        await asyncio.sleep(0)
        await super().read(operation, key)


class LeanSessionsInLaps(SessionsInLaps):
    """The same, with reused greenlets."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        lean: async_sessionmaker[Any] = sa_sqlite_pool.async_sessionmaker(
            engine, expire_on_commit=False
        )
        self._session = lean


class InTurn(Connections):
    """Writes, one after the other. Each takes one lap of the loop, even if the lock is free."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._turn = asyncio.Lock()
        self._asking = 0

    async def write(self, operation: Operation, key: int) -> None:
        is_free = not self._asking
        self._asking += 1
        try:
            async with self._turn:
                if is_free:
                    await asyncio.sleep(0)
                await super().write(operation, key)
        finally:
            self._asking -= 1


def in_thread(driver: str, database: Path, pragmas: Pragmas) -> Engine:
    """Return a synchronous engine for the one thread that uses it."""
    engine = create_engine(
        URL.create(driver, database=str(database)),
        poolclass=StaticPool,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", setting(pragmas))
    return engine
