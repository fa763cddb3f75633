"""A stock engine and the facade behind the same methods, so the same work runs on both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from sa_sqlite_pool import SQLiteDatabase

from ..ways import engines

_BEGIN = text("BEGIN")


class Door(Protocol):
    """The interface that a load needs; ``SQLiteDatabase`` provides it."""

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session whose transaction is committed at the end of the block."""

    def read(self, *, long: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees one snapshot from its first statement until the block ends."""


Opened = AbstractAsyncContextManager[Door]
Make = Callable[[Path], Opened]


def facade(database: Path) -> SQLiteDatabase:
    """Return this package's facade, with its own defaults and the PRAGMAs of all contenders."""
    return SQLiteDatabase(database, pragmas=engines.PRAGMAS)


@asynccontextmanager
async def stock(database: Path) -> AsyncIterator[Stock]:
    """Open SQLAlchemy's own engine."""
    engine = engines.stock(database)
    try:
        yield Stock(async_sessionmaker(engine))
    finally:
        await engine.dispose()


class Stock:
    """Sessions of one engine.

    Python's ``sqlite3`` begins no transaction for a SELECT: a snapshot requires an explicit BEGIN.
    """

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._sessions.begin()

    @asynccontextmanager
    async def read(self, *, long: bool = False) -> AsyncIterator[AsyncSession]:
        del long  # a stock engine has no use for it
        async with self._sessions() as session:
            await session.execute(_BEGIN)
            yield session
