"""The reader's connection of an auto session: when it is acquired, left, and released."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from sa_sqlite_pool import (
    ReaderPool,
    WriterPool,
    WriteTimeout,
    routing_sessionmaker,
)
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.conftest import MakeEngine
from tests.helpers import (
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    turn_of,
    until_waiting,
)
from tests.sessions.beside import Heard, Maker, checked_out
from tests.sessions.reading_beside import committed, read, until_free_of, write


async def test_it_is_taken_by_the_first_read_and_left_by_the_first_write(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """It is released at once, so that others can read while this session waits for its turn."""
    async with maker() as session:
        assert checked_out(reader) == 0
        await read(session)
        assert (checked_out(reader), checked_out(writer)) == (1, 0)
        await write(session)
        assert (checked_out(reader), checked_out(writer)) == (0, 1)
        assert await read(session) == 1
        assert checked_out(reader) == 0


async def test_who_waits_for_the_turn_keeps_nobody_from_reading(
    make_engine: MakeEngine, path: Path
) -> None:
    """Free readers: four sessions that read and then wait to write hold none of four readers."""
    writer = make_engine(WriterPool)
    reader = make_engine(ReaderPool, pool_size=4, read_timeout=5.0)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)

    async def read_and_write() -> None:
        async with maker() as session:
            await read(session)
            await write(session)
            await session.commit()

    async with maker(role="writer") as holder:
        await write(holder)
        waiting = [asyncio.create_task(read_and_write()) for _ in range(4)]
        await until_waiting(4, turn_of(path))
        assert checked_out(reader) == 0
        async with maker(role="reader") as session:
            assert await read(session) == 0
        await holder.rollback()
        await asyncio.gather(*waiting)
    assert (await amounts(writer))[0] == 4


async def test_reads_of_one_transaction_see_one_snapshot(maker: Maker) -> None:
    """Isolated reads: this applies to an auto session, even with savepoints around them."""
    async with maker() as session:
        assert await read(session) == 0
        await committed(maker)
        assert await read(session) == 0
        async with session.begin_nested():
            assert await read(session) == 0
        await session.rollback()
        assert await read(session) == 1


async def test_a_result_that_is_unread_survives_the_first_write(maker: Maker) -> None:
    """Its rows are still available, like those of a stock session after a commit."""
    async with maker() as session:
        rows = await session.execute(select(Item.id))
        items = await session.scalars(select(Item))
        await write(session)
        await session.commit()
        assert rows.all() == [(1,), (2,), (3,)]
        assert [item.id for item in items] == [1, 2, 3]


async def test_several_transactions_of_a_session(
    maker: Maker, heard: Heard, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """Each begins on the reader, however the last one ended."""
    async with maker() as session:
        ends: list[Callable[[], Awaitable[None]]] = [
            session.commit,
            session.rollback,
            session.close,
            session.reset,
            session.invalidate,
        ]
        for end in ends:
            await read(session)
            await write(session)
            assert session.in_transaction()
            await end()
            assert not session.in_transaction()
            await until_free_of(writer, reader)
            await read(session)
            await end()
            await until_free_of(writer, reader)
    assert heard.of("reader").count("begin") == 2 * len(ends)
    assert heard.of("writer").count("commit") == 1


async def test_a_read_begins_the_transaction(maker: Maker) -> None:
    """``in_transaction()``, ``begin()`` and ``autobegin=False`` act as in a stock session."""
    async with maker() as session:
        await read(session)
        assert session.in_transaction()
        with pytest.raises(InvalidRequestError, match="already begun on this Session"):
            await session.begin()
    async with maker(autobegin=False) as session:
        with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
            await read(session)
        async with session.begin():
            await read(session)
        assert not session.in_transaction()


async def test_a_block_that_was_ended_inside_is_not_read_on(
    maker: Maker, reader: AsyncEngine
) -> None:
    """It is refused as on stock, because a statement would belong to another transaction."""
    async with maker() as session, session.begin():
        await read(session)
        await session.commit()
        with pytest.raises(InvalidRequestError, match="closed transaction inside context manager"):
            await read(session)
        assert checked_out(reader) == 0


async def test_a_session_that_closes_for_good(maker: Maker, reader: AsyncEngine) -> None:
    """``close_resets_only=False`` is SQLAlchemy's, and keeps its meaning."""
    async with maker(close_resets_only=False) as session:
        await read(session)
    assert checked_out(reader) == 0
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await read(session)


async def test_after_a_flush_that_failed_reads_are_refused(
    maker: Maker, heard: Heard, reader: AsyncEngine
) -> None:
    """As on stock, they are refused until ``rollback()``, and acquire no reader."""
    async with maker() as session:
        await read(session)
        session.add(Item(id=1))
        with pytest.raises(IntegrityError):
            await session.flush()
        with pytest.raises(PendingRollbackError):
            await read(session)
        assert checked_out(reader) == 0
        await session.rollback()
        assert await read(session) == 0


async def test_after_a_flush_that_failed_in_a_savepoint_reads_are_refused(maker: Maker) -> None:
    """They are refused until the savepoint is rolled back, although the transaction continues."""
    async with maker() as session:
        nested = await session.begin_nested()
        session.add(Item(id=1))
        with pytest.raises(IntegrityError):
            await session.flush()
        for use in (read, write):
            with pytest.raises(PendingRollbackError):
                await use(session)
        await nested.rollback()
        assert await read(session) == 0


async def test_a_savepoint_that_was_ended_inside_its_block_is_not_read_on(maker: Maker) -> None:
    """Reads are refused as on stock, and also before the first write."""
    async with maker() as session:
        async with session.begin_nested() as nested:
            await nested.rollback()
            for use in (read, write):
                with pytest.raises(InvalidRequestError, match="inside context manager"):
                    await use(session)
        assert await read(session) == 0


@pytest.mark.sqlite
async def test_invalidating_throws_the_readers_connection_away(
    maker: Maker, reader: AsyncEngine
) -> None:
    """It does so like in any transaction; ``close()`` returns the connection unchanged."""

    async def adapter(session: AsyncSession) -> SQLiteConnection:
        await read(session)
        assert isinstance(reader.pool, ReaderPool)
        (checkout,) = reader.pool.checkouts
        assert checkout.connection is not None
        return checkout.connection

    async with maker() as session:
        first = await adapter(session)
        await session.close()
        assert await adapter(session) is first
        await session.invalidate()
        assert first.given_up
        await until_free_of(reader)
        assert await adapter(session) is not first


@pytest.mark.sqlite
async def test_a_write_that_timed_out_does_not_send_reads_elsewhere(
    make_engine: MakeEngine, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """Nothing newer is read in the same transaction, which stays with the writer to its end."""
    await create_items(writer)
    impatient = make_engine(WriterPool, write_timeout=0.05)
    maker = routing_sessionmaker(writer=impatient, reader=reader)

    async def wait_in_vain() -> None:
        async with maker() as session:
            assert await read(session) == 0
            with pytest.raises(WriteTimeout):
                await write(session)
            with pytest.raises(WriteTimeout):
                await read(session)
            await session.rollback()
            assert await read(session) == 0

    async with writer.connect() as holder:
        await holder.execute(UPDATE_FIRST)
        await asyncio.create_task(wait_in_vain())
    assert checked_out(reader, impatient) == 0


async def test_the_reader_takes_options_of_the_connection(
    maker: Maker, reader: AsyncEngine
) -> None:
    """``connection(execution_options=…)`` accepts the reader's bind; a second call warns."""
    arguments = {"bind": reader.sync_engine}
    async with maker() as session:
        options = {"statement_timeout": 3.0}
        connection = await session.connection(dict(arguments), execution_options=options)
        given = await connection.run_sync(lambda sync: sync.get_execution_options())
        assert given["statement_timeout"] == 3.0
        await read(session)
        assert checked_out(reader) == 1
        with pytest.warns(match="execution_options ignored"):
            await session.connection(dict(arguments), execution_options=options)
