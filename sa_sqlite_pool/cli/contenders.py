"""The ways in which ``bench`` reads: each runs one statement again and again."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..database import SQLiteDatabase
from .files import url_of


class Measured(NamedTuple):
    """One round: operations a second, and microseconds of process time for each."""

    per_second: float
    process_us: float


class Contender(ABC):
    """One way to read. A statement is executed as the driver takes it, without parameters."""

    name: str

    def __init__(self, statement: str) -> None:
        self._statement = statement

    @abstractmethod
    async def once(self) -> int:
        """Execute the statement in a transaction of its own; return the number of rows."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    async def measure(self, seconds: float, tasks: int) -> Measured:
        """Execute it in so many tasks at once, for so many seconds, at least once in each."""
        began, used = time.perf_counter(), time.process_time()
        counts = await asyncio.gather(*(self._until(began + seconds) for _ in range(tasks)))
        elapsed, used = time.perf_counter() - began, time.process_time() - used
        return Measured(sum(counts) / elapsed, used / sum(counts) * 1e6)

    async def _until(self, end: float) -> int:
        count = 0
        while True:
            await self.once()
            count += 1
            if time.perf_counter() >= end:
                return count


class _OnAsyncEngine(Contender):
    _engine: AsyncEngine

    async def once(self) -> int:
        async with self._engine.connect() as connection:
            return len((await connection.exec_driver_sql(self._statement)).fetchall())


class Stock(_OnAsyncEngine):
    name = "stock"

    def __init__(self, file: Path, statement: str) -> None:
        super().__init__(statement)
        self._engine = create_async_engine(url_of(file, "ro"))

    async def close(self) -> None:
        await self._engine.dispose()


class ReaderEngine(_OnAsyncEngine):
    name = "reader_engine"

    def __init__(self, database: SQLiteDatabase, statement: str) -> None:
        super().__init__(statement)
        self._engine = database.reader_engine

    async def close(self) -> None:
        """Leave it to the database, which is shared."""


class RunReadCore(Contender):
    name = "run_read_core"

    def __init__(self, database: SQLiteDatabase, statement: str) -> None:
        super().__init__(statement)
        self._database = database

    async def once(self) -> int:
        return await self._database.run_read_core(_fetch, self._statement)

    async def close(self) -> None:
        """Leave it to the database, which is shared."""


class Synchronous(Contender):
    """Synchronous SQLAlchemy in one thread, whatever the number of tasks."""

    name = "synchronous"

    def __init__(self, file: Path, statement: str) -> None:
        super().__init__(statement)
        self._engine = create_engine(url_of(file, "ro", "sqlite"))

    async def once(self) -> int:
        with self._engine.connect() as connection:
            return _fetch(connection, self._statement)

    async def measure(self, seconds: float, tasks: int) -> Measured:
        return await super().measure(seconds, 1)

    async def close(self) -> None:
        self._engine.dispose()


def _fetch(connection: Connection, statement: str) -> int:
    found: list[Any] = list(connection.exec_driver_sql(statement).fetchall())
    return len(found)
