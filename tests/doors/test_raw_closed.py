"""The application closes the driver's connection, before or after SQLAlchemy gives it up."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from sa_sqlite_pool.execution.connection_thread import _open_connections
from sa_sqlite_pool.execution.raw import EndedQueue
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, driver, until, until_free

DOORS = {"swap-in": SQLitePool, "reader": ReaderPool, "writer": WriterPool}
SECONDS = 10  # for calls that would otherwise last for ever


async def raw_of(engine: AsyncEngine, give_up: str) -> aiosqlite.Connection:
    """Return aiosqlite's connection, just after SQLAlchemy has given it up in the given way."""
    if give_up == "gc":
        proxied = await engine.raw_connection()
        raw = proxied.driver_connection
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del proxied
            gc.collect()
    else:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            raw = (await connection.get_raw_connection()).driver_connection
            if give_up == "invalidate":
                await connection.invalidate()
        if give_up == "dispose":
            await engine.dispose()
    assert isinstance(raw, aiosqlite.Connection)
    return raw


async def in_time(work: Awaitable[object]) -> None:
    await asyncio.wait_for(work, SECONDS)


async def stop(raw: aiosqlite.Connection) -> None:
    future = raw.stop()
    assert future is not None
    await future


USES: dict[str, Callable[[aiosqlite.Connection], Awaitable[object]]] = {
    "close": lambda raw: raw.close(),
    "stop": stop,
    "execute": lambda raw: raw.execute("SELECT 1"),
    "enter": lambda raw: raw.__aenter__(),
    "commit": lambda raw: raw.commit(),
}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("give_up", ["dispose", "invalidate", "gc"])
@pytest.mark.parametrize("door", DOORS)
async def test_a_connection_that_was_given_up(
    make_engine: MakeEngine, door: str, give_up: str, use: str, at_once: bool
) -> None:
    """A later call on it succeeds or fails, but always returns.

    The thread may have ended or not.
    """
    await create_items(make_engine(WriterPool))
    raw = await raw_of(make_engine(DOORS[door]), give_up)
    if not at_once:
        await until(lambda: not raw._thread.is_alive())
    if use in {"close", "stop"}:
        await in_time(USES[use](raw))
        await in_time(raw.close())
    else:
        with pytest.raises((ValueError, RuntimeError, aiosqlite.Error)):
            await in_time(USES[use](raw))


async def test_several_at_once(swap_in: AsyncEngine) -> None:
    """Each call returns, even if another was cancelled meanwhile."""
    raw = await raw_of(swap_in, "invalidate")
    tasks = [asyncio.ensure_future(raw.close()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done, pending = await asyncio.wait(tasks, timeout=SECONDS)
    assert not pending
    assert any(not task.cancelled() and task.exception() is None for task in done)


@pytest.mark.parametrize("use", ["close", "stop"])
@pytest.mark.parametrize("door", ["swap-in", "writer"])
async def test_a_connection_on_loan(
    path: Path, make_engine: MakeEngine, door: str, use: str
) -> None:
    """Its next statement reports this; the turn passes on, and the next checkout gets another."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(DOORS[door])
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, aiosqlite.Connection)
        await in_time(USES[use](raw))
        with pytest.raises(exc.OperationalError, match="no active connection: it was closed"):
            await in_time(connection.execute(UPDATE_FIRST))
    await until_free(path)
    assert raw not in _open_connections
    assert await amounts(engine) == [0, 0, 0]


@pytest.mark.parametrize("taken", ["before", "after"])
@pytest.mark.parametrize("door", ["swap-in", "writer"])
async def test_a_connection_that_was_recalled(
    make_engine: MakeEngine, door: str, taken: str
) -> None:
    """The application loses access to a connection lent again, as after a database's ``close()``.

    Otherwise half a transaction would be committed, without the turn.
    """
    await create_items(make_engine(WriterPool))
    engine = make_engine(DOORS[door])
    pool = engine.pool
    assert isinstance(pool, FairPool)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        proxied = await connection.get_raw_connection()
        transaction = (await driver(connection)).executor.transaction
        raw = proxied.driver_connection if taken == "before" else None
        pool.recall("it was recalled")
        await until(lambda: transaction._gone)
        raw = raw or proxied.driver_connection
        assert isinstance(raw, aiosqlite.Connection)
        with pytest.raises(ValueError, match=r"losed|no active connection"):
            await in_time(raw.execute(str(UPDATE_FIRST)))
        await in_time(raw.close())
        with pytest.raises(exc.OperationalError, match="no active connection: it was recalled"):
            await connection.execute(UPDATE_FIRST)
    assert await amounts(engine) == [0, 0, 0]


@pytest.mark.parametrize("use", ["close", "stop"])
async def test_a_connection_given_back_closed(make_engine: MakeEngine, use: str) -> None:
    """The connection is not lent again only to find it closed."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    await create_items(engine)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, aiosqlite.Connection)
        await in_time(USES[use](raw))
    pool = engine.pool
    assert isinstance(pool, FairPool)
    await until(lambda: not len(pool.checkouts))
    assert await amounts(engine) == [0, 0, 0]


async def test_a_stopped_connection_runs_nothing(swap_in: AsyncEngine) -> None:
    """Its thread would never run a statement, so no task waits for one."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, aiosqlite.Connection)
        raw.stop()
        with pytest.raises(exc.OperationalError, match="no active connection"):
            await in_time(connection.execute(UPDATE_FIRST))
    assert await amounts(swap_in) == [0, 0, 0]


async def test_an_answer_for_a_loop_that_is_closed() -> None:
    """The answer is dropped."""
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    EndedQueue().put_nowait((future, lambda: 1))
    EndedQueue().put_nowait((None, lambda: 1 / 0))
