"""Ways to hand out sessions; everything else in the shop is the same for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from typing import Any, Protocol

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sa_sqlite_pool import ServerDatabase, SQLiteDatabase


class EngineKind(str, Enum):
    """Who provides the sessions."""

    STOCK = "stock"
    SA_SQLITE_POOL = "sa_sqlite_pool"


class Store(Protocol):
    """Where sessions come from. `SQLiteDatabase` and `ServerDatabase` are two as they stand."""

    async def open(self) -> object:
        """Make ready."""

    async def close(self) -> None:
        """Give every connection back."""

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session that reads."""

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session in one write transaction: committed at the end, rolled back on an error."""


def open_store(kind: EngineKind, url: URL, replicas: Sequence[URL]) -> Store:
    """The store of that kind on that database, not opened yet."""
    if kind is EngineKind.STOCK:
        return StockStore(url)
    if url.get_backend_name() == "sqlite":
        return SQLiteDatabase(url)
    return ServerDatabase(url, replicas=replicas)


class StockStore:
    """SQLAlchemy's own aiosqlite engine, configured as well as its documentation and SQLite's say.

    `poolclass` stays the default for files, AsyncAdaptedQueuePool.
    """

    def __init__(self, url: URL) -> None:
        self._engine = create_async_engine(
            url,
            # The default, 5 and up to 10 more in overflow, opens and closes those 10 all the time.
            # Of 5, 10, 15, 24 and 60 connections that stay open, more serve more reads and starve
            # the writers, who sleep in SQLite's back-off; 10 did best for both together.
            pool_size=10,
            max_overflow=0,
            # SQLite's busy time-out: a writer waits 30 s for its turn instead of the usual 5 s.
            connect_args={"timeout": 30},
        )
        # The documented recipe, below, with one addition: a write transaction says so when it
        # begins. Begun DEFERRED, it would read first and then, whenever somebody had committed
        # meanwhile, fail with SQLITE_BUSY_SNAPSHOT, which no time-out helps.
        writing = self._engine.execution_options(shop_begin="BEGIN IMMEDIATE")
        event.listen(self._engine.sync_engine, "connect", _configure)
        event.listen(self._engine.sync_engine, "begin", _begin)
        self._reading = async_sessionmaker(self._engine, expire_on_commit=False)
        self._writing = async_sessionmaker(writing, expire_on_commit=False)

    async def open(self) -> None:
        """Nothing to do: the pool connects on demand."""

    async def close(self) -> None:
        """Close the pool."""
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session whose transaction is one snapshot."""
        async with self._reading() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session in one write transaction."""
        async with self._writing() as session, session.begin():
            yield session


def _configure(connection: Any, _record: object) -> None:
    # "disable aiosqlite's emitting of the BEGIN statement entirely"
    # (SQLAlchemy, SQLite dialect, "Enabling Non-Legacy SQLite Transactional Modes").
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",  # readers and the writer do not block each other
        "synchronous = NORMAL",  # no fsync at every commit; consistent after a power loss
        "foreign_keys = ON",  # off by default, for each connection anew
        "cache_size = -16384",  # 16 MiB instead of 2 MiB, as much as the other store has
        "temp_store = MEMORY",  # as the other store
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A reader's plain BEGIN makes the whole read session one snapshot, as the other store does.
    connection.exec_driver_sql(connection.get_execution_options().get("shop_begin", "BEGIN"))
