"""Engines that are disposed of while they are used."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    SQLitePool,
    WriterPool,
    statistics,
)
from sa_sqlite_pool.pools.base import FairPool
from tests.cancelling import cancelled_at
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    amounts,
    create_items,
    driver,
    until,
    until_free,
)


async def test_dispose_lets_running_work_go_on(swap_in: AsyncEngine, path: Path) -> None:
    """As in SQLAlchemy, lent connections are closed on their return, and a new pool begins."""
    await create_items(swap_in)
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = await driver(connection)
        await swap_in.dispose()
        assert not raw.worker.closed
        await connection.execute(UPDATE_FIRST)
    assert raw.worker.closed
    assert await amounts(swap_in) == [2, 0, 0]


@pytest.mark.needs_thread
async def test_a_return_that_meets_a_dispose(make_engine: MakeEngine) -> None:
    """In any interleaving, the connection is closed.

    Return                  | Dispose
    ROLLBACK in the thread  |
                            | closes what is at rest
    back in the pool        |
    """
    engine = make_engine(SQLitePool, pool_size=2, max_overflow=0)
    await create_items(engine)
    gate = threading.Event()
    connection = await engine.connect()
    await connection.execute(UPDATE_FIRST)
    raw = await driver(connection)
    raw.worker.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
    returning = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    await engine.dispose()
    gate.set()
    await returning
    assert raw.worker.closed


@pytest.mark.needs_thread
async def test_a_connection_cancelled_while_its_pool_is_disposed_of(
    make_engine: MakeEngine, path: Path
) -> None:
    """It is not kept for a pool that is no longer in use."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    old = engine.pool
    assert isinstance(old, FairPool)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = await driver(connection)
        thread = raw.worker.aiosqlite_connection._thread
        task = asyncio.create_task(connection.execute(ENDLESS))
        await until(lambda: raw.worker.hops > 1 and not raw.worker.at_rest)
        await engine.dispose()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until_free(path)
    await until(lambda: not thread.is_alive())
    assert not old._kept
    assert await amounts(engine) == [0, 0, 0]


async def test_waiters_of_a_disposed_pool_are_served(make_engine: MakeEngine) -> None:
    """They asked earlier; their connections are closed when they return them."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    await create_items(engine)
    pool = engine.pool
    assert isinstance(pool, FairPool)
    connection = await engine.connect()
    task = asyncio.create_task(amounts(engine))
    await until(lambda: pool.waiting == 1)
    await engine.dispose()
    await connection.close()
    assert await task == [0, 0, 0]
    assert pool.checkedin() == 0


@pytest.mark.needs_thread
async def test_a_cancelled_dispose_closes_all_and_leaves_a_pool(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLAlchemy creates no new pool then: this one stays in use, and keeps its connections warm.

    Nothing has failed, so nothing is logged.
    """
    opened: list[sqlite3.Connection] = []
    engine = make_engine(SQLitePool, pool_size=3, on_connect=opened.append)
    await create_items(engine)
    async with engine.connect() as first, engine.connect() as second, engine.connect() as third:
        threads = [(await driver(one)).worker for one in (first, second, third)]
    gate, pool = threading.Event(), engine.pool
    assert isinstance(pool, FairPool)
    for thread in threads:
        thread.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
    disposing = asyncio.create_task(engine.dispose())
    await asyncio.sleep(0)
    disposing.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await disposing
    assert all(thread.closed for thread in threads)
    assert caplog.text == ""
    assert engine.pool is pool
    for _ in range(3):
        assert await amounts(engine) == [0, 0, 0]
    assert len(opened) == 4
    assert (pool.checkedout(), pool.checkedin()) == (0, 1)


@pytest.mark.parametrize("placement", ["auto", "thread"])
@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_cancelled_at_each_moment_after_a_dispose(
    make_engine: MakeEngine, path: Path, poolclass: type, placement: str
) -> None:
    """Repeated at each later moment: the turn is free, and the next pool has all connections."""
    engine = make_engine(poolclass, placement=placement, pool_timeout=10, write_timeout=10)
    await create_items(engine)

    async def operation() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            await engine.dispose()
            await connection.execute(UPDATE_FIRST)

    number = 1
    while await cancelled_at(operation(), number, stubborn=True):
        await until_free(path)
        number += 1
    assert number > 3
    first, *others = await amounts(engine)
    assert (first % 2, others) == (0, [0, 0])


@pytest.mark.needs_thread
async def test_a_task_that_ends_after_its_engine(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """At shutdown, tasks that still run are cancelled after the disposal. This is no error."""
    engine, gate = make_engine(SQLitePool), threading.Event()
    connection = await engine.connect()
    worker = (await driver(connection)).worker
    await engine.dispose()
    worker.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    closing.cancel()
    gate.set()
    await asyncio.wait([closing])
    await until(lambda: worker.closed)
    assert caplog.text == ""


async def test_an_error_in_closing_is_logged(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged as SQLAlchemy logs it."""
    engine = make_engine(SQLitePool)
    async with engine.connect() as connection:
        worker = (await driver(connection)).worker
    close = worker.close

    async def fail() -> None:
        await close()
        raise sqlite3.OperationalError("as expected")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(worker), "close", lambda *_: fail())
        await engine.dispose()
    assert "Exception closing connection" in caplog.text
    assert "as expected" in caplog.text


async def test_what_is_out_is_counted_while_its_pool_is_disposed_of(swap_in: AsyncEngine) -> None:
    """They are no longer counted after their return."""
    pool = swap_in.pool
    assert isinstance(pool, FairPool)
    async with swap_in.connect(), swap_in.connect():
        async with swap_in.connect():
            pass
        await swap_in.dispose()
        assert (pool.checkedout(), pool.checkedin()) == (2, 0)
    assert (pool.checkedout(), pool.checkedin()) == (0, 0)


async def test_what_the_turn_has_counted_stays(swap_in: AsyncEngine) -> None:
    """Like the engine's counters, they only grow."""
    await create_items(swap_in)
    turns = []
    for _ in range(3):
        async with swap_in.begin() as connection:
            await connection.execute(UPDATE_FIRST)
        turns.append(statistics(swap_in).turn.waits.at_once)
        await swap_in.dispose()
        gc.collect()
    assert turns[0] < turns[1] < turns[2]
