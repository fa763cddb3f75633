"""Auto sessions over a primary and a replica, through each door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from sa_sqlite_pool import routing_sessionmaker
from tests.postgresql import DRIVERS, App, Cluster


@dataclass(frozen=True)
class Door:
    """A session maker by the name of its kind and driver."""

    name: str
    maker: async_sessionmaker[AsyncSession]
    reader: AsyncEngine


@asynccontextmanager
async def doors(cluster: Cluster, database: str) -> AsyncIterator[list[Door]]:
    """Open all doors to a database: plain engines and a facade, with each driver."""
    async with AsyncExitStack() as stack:
        found = []
        for driver in DRIVERS:
            app = App(cluster, database, driver)
            found.append(await stack.enter_async_context(_plain(app)))
            db = await stack.enter_async_context(app.open())
            found.append(Door(f"facade, {driver}", db.sessionmaker, db.reader_engine))
        yield found


@asynccontextmanager
async def _plain(app: App) -> AsyncIterator[Door]:
    writer = create_async_engine(app.url())
    reader = create_async_engine(app.url(app.cluster.replicas[0]))
    try:
        maker = routing_sessionmaker(writer=writer, reader=reader)
        yield Door(f"plain engines, {app.driver}", maker, reader)
    finally:
        await writer.dispose()
        await reader.dispose()
