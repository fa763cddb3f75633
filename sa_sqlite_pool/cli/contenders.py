"""The contenders of ``bench``: each runs one statement repeatedly, in its own way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..database import SQLiteDatabase
from .files import pragmas_of, url_of


class Measured(NamedTuple):
    """The result of one round: operations per second, and process time of each in microseconds."""

    per_second: float
    process_us: float


class Contender(NamedTuple):
    """One way to read: ``once`` executes the statement in a transaction of its own.

    It returns the number of rows. The statement is passed to the driver unchanged, without
    parameters. A ``blocking`` contender runs in one task, whatever the number of tasks.
    """

    name: str
    once: Callable[[], Awaitable[int]]
    blocking: bool = False

    async def measure(self, seconds: float, tasks: int) -> Measured:
        """Execute it in ``tasks`` tasks concurrently for ``seconds``, at least once in each."""
        began, used = time.perf_counter(), time.process_time()
        running = range(1 if self.blocking else tasks)
        counts = await asyncio.gather(*(self._until(began + seconds) for _ in running))
        elapsed, used = time.perf_counter() - began, time.process_time() - used
        return Measured(sum(counts) / elapsed, used / sum(counts) * 1e6)

    async def _until(self, end: float) -> int:
        count = 0
        while True:
            await self.once()
            count += 1
            if time.perf_counter() >= end:
                return count


@asynccontextmanager
async def contenders(file: Path, statement: str) -> AsyncIterator[list[Contender]]:
    """Yield all contenders for ``file``, in the order of the results; close them afterwards."""
    stock = create_async_engine(url_of(file, "ro"))
    synchronous = create_engine(url_of(file, "ro", "sqlite"))

    async def by_engine(engine: AsyncEngine) -> int:
        async with engine.connect() as connection:
            return len((await connection.exec_driver_sql(statement)).fetchall())

    async def at_once() -> int:
        with synchronous.connect() as connection:
            return _fetch(connection, statement)

    async with SQLiteDatabase(url_of(file, "ro"), pragmas=pragmas_of(file)) as database:
        try:
            yield [
                Contender("stock", lambda: by_engine(stock)),
                Contender("reader_engine", lambda: by_engine(database.reader_engine)),
                Contender("run_read_core", lambda: database.run_read_core(_fetch, statement)),
                Contender("synchronous", at_once, blocking=True),
            ]
        finally:
            await stock.dispose()
            synchronous.dispose()


def _fetch(connection: Connection, statement: str) -> int:
    return len(connection.exec_driver_sql(statement).fetchall())
