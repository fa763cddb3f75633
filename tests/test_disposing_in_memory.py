"""In-memory engines that are disposed of: the next connection finds an empty database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import StaticPool

from sa_sqlite_pool import SQLitePool
from tests.cancelling import cancelled_at
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, until

IN_MEMORY = ["", "/:memory:", "/file::memory:?uri=true"]


def directory_of(engine: AsyncEngine) -> Path:
    """Return the directory in which an in-memory engine keeps its database."""
    return Path(engine.pool._connector.location.path).parent  # type: ignore[attr-defined]


async def is_empty(engine: AsyncEngine) -> bool:
    """Return whether a new connection finds no table."""
    async with engine.connect() as connection:
        count = await connection.execute(text("SELECT count(*) FROM sqlite_master"))
        return bool(count.scalar_one() == 0)


@pytest.mark.parametrize("poolclass", [StaticPool, SQLitePool])
async def test_each_test_has_its_own_rows(poolclass: type) -> None:
    """Fixtures often use one engine for a module, which each test disposes of at its end."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=poolclass)
    for _ in range(3):
        await create_items(engine)
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(UPDATE_FIRST)
        assert await amounts(engine) == [1, 0, 0]
        await engine.dispose()


@pytest.mark.parametrize("database", IN_MEMORY)
async def test_its_directory_goes_with_it(
    database: str, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(SQLitePool, url=f"sqlite+aiosqlite://{database}")
    await create_items(engine)
    directory = directory_of(engine)
    await engine.dispose()
    assert not directory.exists()
    assert await is_empty(engine)
    assert directory_of(engine) != directory
    await create_items(engine)
    assert await amounts(engine) == [0, 0, 0]
    assert caplog.text == ""


async def test_a_file_keeps_its_rows(make_engine: MakeEngine) -> None:
    engine = make_engine(SQLitePool)
    await create_items(engine)
    await engine.dispose()
    assert await amounts(engine) == [0, 0, 0]


async def test_what_is_checked_out_goes_on(make_engine: MakeEngine) -> None:
    """Its database exists until it is returned; meanwhile there are two, with a turn each."""
    engine = make_engine(SQLitePool, url="sqlite+aiosqlite://")
    await create_items(engine)
    directory = directory_of(engine)
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        await engine.dispose()
        await create_items(engine)
        await connection.execute(UPDATE_FIRST)
        assert directory.exists()
    assert not directory.exists()
    assert await amounts(engine) == [0, 0, 0]


async def test_a_task_that_has_waited_in_line(make_engine: MakeEngine) -> None:
    """It opens the next database, as later tasks do, and acquires that database's turn."""
    engine = make_engine(
        SQLitePool, url="sqlite+aiosqlite://", pool_size=1, max_overflow=0, write_timeout=1
    )
    old = engine.pool
    connection = await engine.connect()
    task = asyncio.create_task(is_empty(engine))
    await until(lambda: old.waiting == 1)  # type: ignore[attr-defined]
    await connection.execute(text("CREATE TABLE items (id INTEGER)"))
    await connection.commit()
    await engine.dispose()
    await connection.close()
    assert await task
    async with engine.connect():
        files = [pool.database_file for pool in (old, engine.pool)]  # type: ignore[attr-defined]
    assert files[0] is files[1]


async def test_while_a_task_opens_its_connection(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Its database exists until it returns the connection, wherever it has got to by then."""
    opened, laps = False, 0
    while not opened:
        engine = make_engine(SQLitePool, url="sqlite+aiosqlite://")
        task = asyncio.create_task(is_empty(engine))
        for _ in range(laps):
            await asyncio.sleep(0)
        opened = engine.pool.checkedout() == 1 and bool(engine.pool.checkouts)  # type: ignore[attr-defined]
        laps += 1
        directory = directory_of(engine)
        await engine.dispose()
        assert await task
        assert not directory.exists()
        await engine.dispose()
    assert laps > 2
    assert caplog.text == ""


async def test_disposed_of_again_while_one_that_has_waited_is_there(
    make_engine: MakeEngine,
) -> None:
    """It waited in the first pool's line, and its database is the second pool's."""
    engine = make_engine(SQLitePool, url="sqlite+aiosqlite://", pool_size=1, max_overflow=0)
    go_on, old = asyncio.Event(), engine.pool

    async def wait_and_write() -> Path:
        async with engine.begin() as connection:
            directory = directory_of(engine)
            await go_on.wait()
            await connection.execute(text("CREATE TABLE items (id INTEGER)"))
        return directory

    async with engine.connect():
        task = asyncio.create_task(wait_and_write())
        await until(lambda: old.waiting == 1)  # type: ignore[attr-defined]
        await engine.dispose()
    await until(lambda: len(old.checkouts) == 1)  # type: ignore[attr-defined]
    assert await is_empty(engine)
    directory = directory_of(engine)
    await engine.dispose()
    assert directory.exists()
    go_on.set()
    assert await task == directory
    assert not directory.exists()


async def test_a_dispose_that_is_cancelled(make_engine: MakeEngine) -> None:
    """If SQLAlchemy creates no new pool, the database is the previous one."""
    number, suspended = 0, True
    while suspended:
        number += 1
        engine = make_engine(SQLitePool, url="sqlite+aiosqlite://", placement="thread")
        await create_items(engine)
        pool = engine.pool
        suspended = await cancelled_at(engine.dispose(), number, stubborn=False)
        if engine.pool is pool:
            assert await amounts(engine) == [0, 0, 0]
        else:
            assert await is_empty(engine)
    assert number > 1


async def test_other_engines_have_their_own(make_engine: MakeEngine) -> None:
    one, other = (make_engine(SQLitePool, url="sqlite+aiosqlite://") for _ in range(2))
    await create_items(one)
    await create_items(other)
    await one.dispose()
    assert await amounts(other) == [0, 0, 0]
    with pytest.raises(exc.OperationalError, match="no such table"):
        await amounts(one)
