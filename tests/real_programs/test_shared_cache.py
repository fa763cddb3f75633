"""A named in-memory database, as in test suites, and ``cache=shared`` on a file.

Its connections lock tables against one another: no task reads beside a writer without waiting.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.errors import OwnLockError
from tests.waiting import pauses

_numbers = itertools.count()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a separate database for each test."""
    if request.param == "memory":
        return f"sqlite+aiosqlite:///file:shared{next(_numbers)}?mode=memory&cache=shared&uri=true"
    return f"sqlite+aiosqlite:///file:{tmp_path / 'app.db'}?cache=shared&uri=true"


@asynccontextmanager
async def engines(door: str, url: str) -> AsyncIterator[tuple[AsyncEngine, AsyncEngine]]:
    """Yield an engine that writes and one that reads, with a table."""
    if door == "facade":
        async with SQLiteDatabase(url) as db:
            await _create(db.writer_engine)
            yield db.writer_engine, db.reader_engine
        return
    pools = {"stock": (AsyncAdaptedQueuePool, None), "swap-in": (SQLitePool, None)}
    of_writer, of_reader = pools.get(door, (WriterPool, ReaderPool))
    writer = create_async_engine(url, poolclass=of_writer)
    reader = writer if of_reader is None else create_async_engine(url, poolclass=of_reader)
    try:
        await _create(writer)
        yield writer, reader
    finally:
        await reader.dispose()
        await writer.dispose()


async def _create(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE item (i)"))


DOORS = ["stock", "swap-in", "engines", "facade"]


@pytest.mark.parametrize("door", DOORS)
async def test_a_task_does_not_wait_for_its_own_write(door: str, url: str) -> None:
    """The error is raised at once, as on stock, and by name."""
    async with engines(door, url) as (writer, reader), writer.begin() as connection:
        await connection.execute(text("INSERT INTO item VALUES (1)"))
        async with async_sessionmaker(reader)() as session:
            with pytest.raises(OperationalError, match="locked") as caught:
                await session.scalar(text("SELECT count(*) FROM item"))
        if door != "stock":
            assert isinstance(caught.value.orig, OwnLockError)
            assert "it would wait for itself" in str(caught.value)


@pytest.mark.parametrize("door", DOORS[1:])
async def test_other_tasks_wait(door: str, url: str) -> None:
    """The write of another task ends by itself."""
    wrote, go_on = asyncio.Event(), asyncio.Event()
    async with engines(door, url) as (writer, reader):

        async def write() -> None:
            async with writer.begin() as connection:
                await connection.execute(text("INSERT INTO item VALUES (1)"))
                wrote.set()
                await go_on.wait()

        async def read() -> int | None:
            async with reader.connect() as connection:
                count: int | None = await connection.scalar(text("SELECT count(*) FROM item"))
                return count

        writing = asyncio.create_task(write())
        await wrote.wait()
        with pauses(go_on.set):
            assert await read() in {0, 1}
        await writing
        assert await read() == 1


@pytest.mark.parametrize("door", DOORS[1:])
async def test_a_task_does_not_wait_for_its_own_reading(door: str, url: str) -> None:
    """A result that is still to be read locks its table, which can be written afterwards."""
    async with engines(door, url) as (writer, reader):
        async with writer.begin() as connection:
            await connection.execute(text("INSERT INTO item VALUES (1), (2)"))
        async with reader.connect() as reading:
            stream = await reading.stream(text("SELECT i FROM item"))
            await stream.fetchone()
            async with writer.connect() as connection:
                with pytest.raises(OperationalError, match="would wait for itself"):
                    await connection.execute(text("INSERT INTO item VALUES (3)"))
                await connection.rollback()
            await stream.close()
        async with writer.begin() as connection:
            await connection.execute(text("INSERT INTO item VALUES (3)"))


@pytest.mark.parametrize("door", DOORS[1:])
async def test_its_own_reading_is_not_to_blame_for_the_lock_of_others(door: str, url: str) -> None:
    """Another table that another task writes is waited for as usual."""
    wrote, go_on = asyncio.Event(), asyncio.Event()
    async with engines(door, url) as (writer, reader):
        async with writer.begin() as connection:
            await connection.execute(text("CREATE TABLE other (i)"))
            await connection.execute(text("INSERT INTO other VALUES (1), (2)"))

        async def write() -> None:
            async with writer.begin() as connection:
                await connection.execute(text("INSERT INTO item VALUES (1)"))
                wrote.set()
                await go_on.wait()

        async with reader.connect() as own:
            stream = await own.stream(text("SELECT i FROM other"))
            await stream.fetchone()
            writing = asyncio.create_task(write())
            await wrote.wait()
            with pauses(go_on.set):
                async with reader.connect() as connection:
                    assert await connection.scalar(text("SELECT count(*) FROM item")) in {0, 1}
            await stream.close()
        await writing
