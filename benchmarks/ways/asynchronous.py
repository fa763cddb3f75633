"""SQLAlchemy's asyncio engines, with its own pools and with those of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from .base import Open, Way
from .engines import Pragmas
from .settings import Settings, settings_of
from .steps import Get, Operation, Step, drive_async

Make = Callable[[Path, Pragmas], AsyncEngine]


async def execute(on: AsyncConnection | AsyncSession, step: Step) -> object:
    """Execute as application code does: await the result, then fetch the rows."""
    if isinstance(step, Get):
        assert isinstance(on, AsyncSession)
        return await on.get(step.entity, step.key)
    result = await on.execute(step.statement.core, step.parameters)
    if step.statement.returns_rows:
        return result.fetchall()
    return cast("CursorResult[Any]", result).rowcount


class _Engine:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # one engine for both
        async with self._engine.connect() as connection:
            return await connection.run_sync(settings_of)


class Connections(_Engine):
    """Core: a connection is checked out for each operation and returned."""

    async def read(self, operation: Operation, key: int) -> None:
        async with self._engine.connect() as connection:
            await drive_async(operation(key), partial(execute, connection))

    async def write(self, operation: Operation, key: int) -> None:
        async with self._engine.begin() as connection:
            await drive_async(operation(key), partial(execute, connection))


class Sessions(_Engine):
    """ORM: a session for each operation."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._session: async_sessionmaker[Any] = async_sessionmaker(engine, expire_on_commit=False)

    async def read(self, operation: Operation, key: int) -> None:
        async with self._session() as session:
            await drive_async(operation(key), partial(execute, session))

    async def write(self, operation: Operation, key: int) -> None:
        async with self._session.begin() as session:
            await drive_async(operation(key), partial(execute, session))


def through(way: Callable[[AsyncEngine], Way], make: Make) -> Open:
    """Return ``way`` over the engine that ``make`` creates."""

    @asynccontextmanager
    async def opened(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
        engine = make(database, pragmas)
        try:
            yield way(engine)
        finally:
            await engine.dispose()

    return opened
