"""The cost of a statement, counted in hops to the connection's thread and back."""

from __future__ import annotations

import asyncio
import gc

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.conftest import MakeEngine
from tests.helpers import Item, create_items, driver


async def warm(engine: AsyncEngine) -> SQLiteConnection:
    """Yield the engine's connection, opened and used once."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        return await driver(connection)


@pytest.mark.needs_thread
async def test_a_read_transaction_costs_one_hop(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """BEGIN, SELECT, fetch and close share a hop; the end of the snapshot takes none."""
    await create_items(writer)
    connection = await warm(reader)
    before = connection.worker.hops
    async with reader.connect() as checked_out:
        rows = (await checked_out.execute(select(Item.id))).all()
    assert len(rows) == 3
    assert connection.worker.hops - before == 1
    assert not connection.in_transaction


@pytest.mark.needs_thread
async def test_a_write_transaction_costs_two_hops(writer: AsyncEngine) -> None:
    """BEGIN IMMEDIATE and the statement share one hop; COMMIT is the other."""
    await create_items(writer)
    connection = await warm(writer)
    before = connection.worker.hops
    async with writer.begin() as checked_out:
        await checked_out.execute(text("UPDATE items SET amount = 1"))
    assert connection.worker.hops - before == 2


@pytest.mark.needs_thread
async def test_the_swap_in_costs_no_more(swap_in: AsyncEngine) -> None:
    """One hop for a read, two for a write transaction."""
    await create_items(swap_in)
    connection = await warm(swap_in)
    before = connection.worker.hops
    async with swap_in.connect() as checked_out:
        await checked_out.execute(select(Item.id))
    assert connection.worker.hops - before == 1
    async with swap_in.begin() as checked_out:
        await checked_out.execute(text("UPDATE items SET amount = 1"))
    assert connection.worker.hops - before == 3


async def test_ending_nothing_costs_nothing(swap_in: AsyncEngine, writer: AsyncEngine) -> None:
    """commit and rollback send nothing if no transaction is open."""
    for engine in (swap_in, writer):
        connection = await warm(engine)
        before = connection.worker.hops
        async with engine.connect() as checked_out:
            await checked_out.commit()
            await checked_out.rollback()
            async with checked_out.begin():
                pass
        assert connection.worker.hops == before


@pytest.mark.needs_thread
async def test_sessions_add_none(db: SQLiteDatabase) -> None:
    """A facade session costs only the hops of its statements."""
    await create_items(db.writer_engine)
    reader = await warm(db.reader_engine)
    before = reader.worker.hops
    async with db.read() as session:
        assert await session.get(Item, 1) is not None
    assert reader.worker.hops - before == 1

    writer = await warm(db.writer_engine)
    before = writer.worker.hops
    async with db.write() as session:
        session.add(Item(id=10))
    assert writer.worker.hops - before == 2


async def test_a_stream_costs_a_hop_a_chunk(swap_in: AsyncEngine) -> None:
    """A server-side cursor fetches rows on request, never the whole result."""
    await create_items(swap_in, count=1000)
    connection = await warm(swap_in)
    async with swap_in.connect() as checked_out:
        before = connection.worker.hops
        result = await checked_out.stream(
            select(Item.id).execution_options(yield_per=100, max_row_buffer=100)
        )
        chunks = [len(chunk) async for chunk in result.partitions()]
    assert chunks == [100] * 10
    assert 11 <= connection.worker.hops - before <= 13  # execute, ten chunks, the empty one


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool, ReaderPool])
async def test_a_transaction_leaves_no_garbage(make_engine: MakeEngine, poolclass: type) -> None:
    """There are no cycles, so the garbage collector, which stops everything, has nothing to do."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass)

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT id FROM items"))

    await asyncio.gather(*(use() for _ in range(20)))
    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(*(use() for _ in range(20)))
        assert gc.collect() < 20
    finally:
        gc.enable()
