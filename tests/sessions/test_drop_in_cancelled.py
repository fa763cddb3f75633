"""Cancellations with reused greenlets: none is left in the middle of an operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext import asyncio as theirs

import sa_sqlite_pool
from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.compat.greenlets import Spawned
from sa_sqlite_pool.pools.base import FairPool
from tests.cancelling import cancelled_at
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    end_idle,
    turn_of,
    until,
)

Operation = Callable[["App"], Coroutine[Any, Any, None]]


class App:
    """An engine with two connections, and a session maker."""

    def __init__(self, names: Any, path: Path) -> None:
        url = f"sqlite+aiosqlite:///{path}"
        self.engine = names.create_async_engine(url, poolclass=SQLitePool, pool_size=2)
        self.maker = names.async_sessionmaker(self.engine, expire_on_commit=False)
        self.path = path

    async def come_to_rest(self) -> None:
        pool = self.engine.pool
        assert isinstance(pool, FairPool)
        await until(lambda: turn_of(self.path).holder is None and pool.checkedout() == 0)

    def assert_greenlets_are_idle(self) -> None:
        """Assert that they wait for work, are listed only once, and keep nothing."""
        runners = Spawned.idle.runners
        assert len(set(map(id, runners))) == len(runners) > 0
        for runner in runners:
            assert (runner.outcome.result, runner.outcome.error) == (None, None)
            assert runner.gr_context is None
            assert not runner.dead


@pytest.fixture(params=["imported", "installed"])
def names(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield this package's asyncio names, or SQLAlchemy's as changed by ``install()``."""
    end_idle(Spawned)
    if request.param == "imported":
        yield sa_sqlite_pool
    else:
        sa_sqlite_pool.install()
        yield theirs
        sa_sqlite_pool.uninstall()


@pytest.fixture
async def app(names: Any, path: Path) -> AsyncIterator[App]:
    app = App(names, path)
    await create_items(app.engine)
    yield app
    await app.engine.dispose()


async def engine_block(app: App) -> None:
    async with app.engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        async with connection.begin_nested():
            await connection.execute(UPDATE_FIRST)
        await connection.rollback()


async def session_block(app: App) -> None:
    async with app.maker() as session, session.begin():
        await session.execute(UPDATE_FIRST)
        await session.get(Item, 1)
        await session.rollback()


async def maker_block(app: App) -> None:
    async with app.maker.begin() as session:
        await session.execute(UPDATE_FIRST)
        async with session.begin_nested() as savepoint:
            session.add(Item(id=4))
            await session.flush()
            await savepoint.rollback()
        await session.rollback()


async def stream(app: App) -> None:
    async with app.maker() as session:
        async for _ in await session.stream(select(Item)):
            pass
    async with app.engine.connect() as connection, connection.stream(select(Item.id)) as result:
        async for _ in result:
            pass


OPERATIONS = [engine_block, session_block, maker_block, stream]


@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_at_every_await(app: App, operation: Operation, stubborn: bool) -> None:
    """Nothing of it is kept, and the next operation finds greenlets and connections as if new."""
    number = 1
    while await cancelled_at(operation(app), number, stubborn):
        await app.come_to_rest()
        app.assert_greenlets_are_idle()
        assert await amounts(app.engine) == [0, 0, 0]
        number += 1
    assert number > 1


async def in_connection(app: App) -> None:
    async with app.engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.execute(ENDLESS)


async def in_session(app: App) -> None:
    async with app.maker.begin() as session:
        await session.execute(UPDATE_FIRST)
        await session.execute(ENDLESS)


@pytest.mark.needs_thread
@pytest.mark.parametrize("work", [in_connection, in_session])
async def test_cancelled_in_a_statement(app: App, work: Operation) -> None:
    """After repeated cancellations, the greenlets are reused, not left behind."""
    for _ in range(5):
        task = asyncio.create_task(work(app))
        await until(lambda: turn_of(app.path).holder is not None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await app.come_to_rest()
        app.assert_greenlets_are_idle()
    assert len(Spawned.idle.runners) < 5
    assert await amounts(app.engine) == [0, 0, 0]


async def test_a_coroutine_that_is_thrown_away(app: App) -> None:
    """Its greenlet ends with it, as when a loop ends midway, and is not reused."""
    async with app.engine.connect() as connection:
        coroutine = connection.execute(text("SELECT 1"))
        awaiting = coroutine.__await__()
        end_idle(Spawned)
        next(awaiting, None)
        coroutine.close()
    await app.come_to_rest()
    app.assert_greenlets_are_idle()
