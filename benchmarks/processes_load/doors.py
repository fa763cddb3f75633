"""A stock engine and this package's, each behind a function that begins a write transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sa_sqlite_pool import SQLiteDatabase

from ..ways import engines

Begin = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Open a session whose transaction is committed at the end of the block."""

Door = Callable[[Path], AbstractAsyncContextManager[Begin]]

STOCK, FACADE, SWAP_IN = "stock", "SQLiteDatabase", "SQLitePool"


@asynccontextmanager
async def _facade(database: Path) -> AsyncIterator[Begin]:
    async with SQLiteDatabase(database, pragmas=engines.PRAGMAS) as db:
        yield db.write


@asynccontextmanager
async def _sessions(engine: AsyncEngine) -> AsyncIterator[Begin]:
    try:
        yield async_sessionmaker(engine).begin
    finally:
        await engine.dispose()


DOORS: Mapping[str, Door] = {
    STOCK: lambda database: _sessions(engines.stock_with_its_own_timeout(database)),
    FACADE: _facade,
    SWAP_IN: lambda database: _sessions(engines.swap_in(database)),
}
