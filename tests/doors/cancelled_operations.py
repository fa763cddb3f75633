"""A set of engines on one file, and the operations that are performed through them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    routing_sessionmaker,
)
from sa_sqlite_pool.execution import loop_budget
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import (
    Item,
    create_items,
    until,
    until_free,
)

INSERT = text("INSERT INTO items (id, amount) VALUES (:id, :amount)")


COUNT = text("SELECT count(*) FROM items a, items b")


class House:
    """Three doors to one file. ``opened`` counts the connections that SQLite has opened."""

    def __init__(self, path: Path, make_engine: MakeEngine) -> None:
        self.path = path
        self.opened = 0
        self.numbers = iter(range(100, 10**9, 2))
        self.swap_in = make_engine(SQLitePool, pool_size=1, on_connect=self.count)
        self.writer = make_engine(WriterPool, on_connect=self.count)
        self.reader = make_engine(ReaderPool, pool_size=1, on_connect=self.count)
        self.routed = routing_sessionmaker(writer=self.writer, reader=self.reader)
        self.db = SQLiteDatabase(path, readers=1, on_connect=self.count)

    def count(self, _: sqlite3.Connection) -> None:
        self.opened += 1

    @property
    def engines(self) -> list[AsyncEngine]:
        own = [self.db.writer_engine, self.db.reader_engine]
        return [self.swap_in, self.writer, self.reader, *own]

    @property
    def pools(self) -> list[FairPool]:
        return [engine.pool for engine in self.engines if isinstance(engine.pool, FairPool)]

    async def come_to_rest(self) -> None:
        """Wait until SQLAlchemy's tasks have closed connections and threads have rolled back."""
        await until(lambda: not any(map(len, (pool.checkouts for pool in self.pools))))
        await until_free(self.path)

    async def assert_works(self) -> None:
        """Every door works at once, and the table contains only complete pairs."""
        for engine in (self.swap_in, self.writer, self.db.writer_engine):
            async with engine.begin() as connection:
                await connection.execute(text("UPDATE items SET amount = amount WHERE id = 1"))
        for engine in (self.swap_in, self.reader, self.db.reader_engine):
            async with engine.connect() as connection:
                ids = set(await connection.scalars(select(Item.id).where(Item.id >= 100)))
        assert all((number ^ 1) in ids for number in ids)

    async def pair(self, execute: Callable[..., Awaitable[Any]]) -> None:
        """Insert two rows that must be committed together or not at all."""
        number = next(self.numbers)
        await execute(INSERT, {"id": number, "amount": 0})
        await execute(INSERT, {"id": number + 1, "amount": 0})


async def swap_in_write(house: House) -> None:
    async with house.swap_in.begin() as connection:
        await house.pair(connection.execute)


async def swap_in_read(house: House) -> None:
    async with house.swap_in.connect() as connection:
        await connection.execute(COUNT)


async def swap_in_snapshot(house: House) -> None:
    async with house.swap_in.connect() as connection:
        await connection.execution_options(sqlite_role="reader")
        await connection.execute(COUNT)
        await connection.commit()


async def swap_in_autocommit(house: House) -> None:
    async with house.swap_in.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        number = next(house.numbers)
        await connection.execute(INSERT, [{"id": number + i, "amount": 0} for i in range(2)])


async def unshielded_close(house: House) -> None:
    connection = await house.swap_in.connect()
    try:
        await house.pair(connection.execute)
        await connection.rollback()
        await house.pair(connection.execute)
    finally:
        await connection.close()


async def stream(house: House) -> None:
    async with house.swap_in.connect() as connection:
        result = await connection.stream(select(Item.id), execution_options={"yield_per": 2})
        async for _ in result:
            pass


async def writer_savepoint(house: House) -> None:
    async with house.routed(role="writer") as session, session.begin():
        await house.pair(session.execute)
        async with session.begin_nested():
            await house.pair(session.execute)


async def orm_flush(house: House) -> None:
    async with house.routed() as session:
        number = next(house.numbers)
        session.add_all([Item(id=number), Item(id=number + 1)])
        await session.flush()
        await session.commit()


async def read_then_write(house: House) -> None:
    async with house.routed() as session:
        await session.execute(COUNT)
        await house.pair(session.execute)
        await session.commit()


async def routed_stream(house: House) -> None:
    async with house.routed(role="reader") as session:
        async for _ in await session.stream(select(Item.id).execution_options(yield_per=2)):
            pass


async def facade_write(house: House) -> None:
    async with house.db.write() as session:
        await house.pair(session.execute)


async def facade_rollback(house: House) -> None:
    async with house.db.write() as session:
        await house.pair(session.execute)
        await session.rollback()


async def facade_read(house: House) -> None:
    async with house.db.read() as session:
        await session.execute(COUNT)


async def a_task_group_of_which_one_fails(house: House) -> None:
    async def fail() -> None:
        await facade_write(house)
        raise LookupError

    tasks = [asyncio.ensure_future(task) for task in (facade_read(house), fail())]
    try:
        await asyncio.gather(*tasks)
    except LookupError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


OPERATIONS = [
    swap_in_write,
    swap_in_read,
    swap_in_snapshot,
    swap_in_autocommit,
    unshielded_close,
    stream,
    writer_savepoint,
    orm_flush,
    read_then_write,
    routed_stream,
    facade_write,
    facade_rollback,
    facade_read,
    a_task_group_of_which_one_fails,
]


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make work on the loop yield as early as possible, so that it is suspended at all."""

    def never_at_once(self: loop_budget.LoopBudget) -> bool:
        if not self._lap_scheduled:
            self._begin_lap(0.001)
        return False

    monkeypatch.setattr(loop_budget.LoopBudget, "enter_nowait", never_at_once)
    monkeypatch.setattr(loop_budget, "HOLDING_SECONDS", 0.0)


@pytest.fixture
async def house(path: Path, make_engine: MakeEngine) -> AsyncIterator[House]:
    house = House(path, make_engine)
    await create_items(house.swap_in)
    async with house.db:
        await house.assert_works()
        yield house
