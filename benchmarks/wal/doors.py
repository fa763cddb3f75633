"""A stock engine and the facade behind the same methods, so that the same work runs on both."""

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
    """What a load needs of a database; ``SQLiteDatabase`` has it."""

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session whose transaction is committed at the end of the block."""

    def read(self, *, long: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
        """A session that sees one snapshot from its first statement to the end of the block."""


Opened = AbstractAsyncContextManager[Door]
Make = Callable[[Path], Opened]


def facade(database: Path) -> SQLiteDatabase:
    """This package's, with its own defaults and the PRAGMAs of all contenders."""
    return SQLiteDatabase(database, pragmas=engines.PRAGMAS)


@asynccontextmanager
async def stock(database: Path) -> AsyncIterator[Stock]:
    """SQLAlchemy's own engine."""
    engine = engines.stock(database)
    try:
        yield Stock(async_sessionmaker(engine))
    finally:
        await engine.dispose()


class Stock:
    """Sessions of one engine.

    Python's ``sqlite3`` begins no transaction for a SELECT: who wants a snapshot sends BEGIN.
    """

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        return self._sessions.begin()

    @asynccontextmanager
    async def read(self, *, long: bool = False) -> AsyncIterator[AsyncSession]:
        del long  # nobody there to be told
        async with self._sessions() as session:
            await session.execute(_BEGIN)
            yield session
