"""Events, errors and cancellations of a session whose reader is beside its transaction."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, SessionTransaction

from sa_sqlite_pool import (
    ReaderPool,
    WriterPool,
    routing_sessionmaker,
)
from tests.cancelling import cancelled_at
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    amounts,
    create_items,
    until,
    until_free,
)
from tests.sessions.beside import Maker, checked_out, permits
from tests.sessions.reading_beside import TOTAL, read, stream, until_free_of, write


async def test_after_begin_tells_of_each_connection(maker: Maker) -> None:
    """It fires once for the reader's and once for the writer's, with the root transaction."""
    begun: list[tuple[str, bool]] = []

    def after_begin(_: Session, transaction: SessionTransaction, connection: Connection) -> None:
        role = "reader" if connection.engine is maker.kw["reader"].sync_engine else "writer"
        begun.append((role, transaction.parent is None))

    async with maker() as session:
        event.listen(session.sync_session, "after_begin", after_begin)
        for _ in range(2):
            await read(session)
            await read(session)
            await write(session)
            await read(session)
            await session.commit()
    assert begun == 2 * [("reader", True), ("writer", True)]


async def test_a_listener_that_raises_leaves_nothing_checked_out(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """The listener is to ``after_begin`` of the reader."""

    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    async with maker() as session:
        event.listen(session.sync_session, "after_begin", refuse)
        with pytest.raises(ZeroDivisionError):
            await read(session)
    assert checked_out(writer, reader) == 0


async def test_a_listener_to_the_engine_that_raises_leaves_nothing_checked_out(
    maker: Maker, reader: AsyncEngine
) -> None:
    """The listener is to ``begin`` of the reader engine."""

    def refuse(_: Connection) -> None:
        raise ZeroDivisionError

    event.listen(reader.sync_engine, "begin", refuse)
    async with maker() as session:
        with pytest.raises(ZeroDivisionError):
            await read(session)
        assert checked_out(reader) == 0
        event.remove(reader.sync_engine, "begin", refuse)
        assert await read(session) == 0


@pytest.mark.sqlite
async def test_when_the_transaction_has_ended_so_has_the_read(
    make_engine: MakeEngine, writer: AsyncEngine
) -> None:
    """A listener to its end may read in the next one, with the only reader that exists."""
    reader = make_engine(ReaderPool, pool_size=1, read_timeout=1.0)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)
    ended: list[int] = []

    def after_end(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and not ended:
            ended.append(checked_out(reader))
            session.execute(TOTAL)

    async with maker() as session:
        event.listen(session.sync_session, "after_transaction_end", after_end)
        await read(session)
        await session.rollback()
        assert session.in_transaction()
    assert ended == [0]
    assert checked_out(reader) == 0


@pytest.mark.sqlite
async def test_two_tasks_at_once_are_refused_as_on_stock(
    make_engine: MakeEngine, writer: AsyncEngine
) -> None:
    """While one acquires the reader, the other gets an error; nothing is acquired twice or lost."""
    reader = make_engine(ReaderPool, pool_size=1)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)
    async with maker() as session:
        async with reader.connect() as _:
            first = asyncio.create_task(read(session))
            await until(lambda: reader.pool.waiting == 1)  # type: ignore[attr-defined]
            with pytest.raises(InvalidRequestError, match="provisioning a new connection"):
                await read(session)
            with pytest.raises(InvalidRequestError):
                await session.rollback()
        assert await first == 0
        await session.rollback()
    assert checked_out(reader) == 0


async def whole(maker: Maker) -> None:
    """Run all stages of an auto session, one after the other."""
    async with maker() as session:
        async with session.begin():
            await read(session)
            async with session.begin_nested():
                await read(session)
                await write(session)
            await read(session)
        result = await stream(session)
        async for _ in result:
            pass
        await write(session)
        await session.commit()
        await read(session)
        await stream(session)
        await session.rollback()
        await read(session)


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("mode", ["WAL", "TRUNCATE"])
async def test_cancelled_at_every_await(
    make_engine: MakeEngine, path: Path, stubborn: bool, mode: str
) -> None:
    """No connection stays checked out, the turn is free, and nothing uncommitted is kept."""
    options: dict[str, Any] = {"placement": "thread", "pragmas": {"journal_mode": mode}}
    writer, reader = make_engine(WriterPool, **options), make_engine(ReaderPool, **options)
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader)
    await whole(maker)  # so that later no connection has to be opened first
    number, before = 1, 2
    while await cancelled_at(whole(maker), number, stubborn):
        await until_free_of(writer, reader)
        await until_free(path)
        after = (await amounts(writer))[0]
        assert 0 <= after - before <= 2
        number, before = number + 1, after
    assert number > 10
    await whole(maker)
    assert (await amounts(writer))[0] == before + 4
    assert checked_out(writer, reader) == 0


@pytest.mark.sqlite  # on another engine the writer continues, whatever the reader's state
@pytest.mark.needs_thread
async def test_a_cancelled_read_ends_the_transaction(maker: Maker, reader: AsyncEngine) -> None:
    """As on stock, neither reads nor writes continue in it until ``rollback()``."""
    async with maker() as session:
        reading = asyncio.create_task(session.scalar(ENDLESS))
        await until(lambda: any(permit.last_sql for permit in permits(reader)))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        for use in (read, write):
            with pytest.raises(PendingRollbackError):
                await use(session)
        await session.rollback()
        assert await read(session) == 0
        await write(session)
    assert checked_out(reader) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
async def test_an_error_gives_everything_back(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine, error: type[BaseException]
) -> None:
    """This holds before and after the first write, in a savepoint, and with a stream."""

    async def fail(stage: int) -> None:
        async with maker() as session, session.begin():
            await read(session)
            if stage == 0:
                raise error
            async with session.begin_nested():
                await stream(session)
                if stage == 1:
                    raise error
                await write(session)
                raise error

    for stage in range(3):
        with pytest.raises(error):
            await fail(stage)
        assert checked_out(writer, reader) == 0
    assert (await amounts(writer))[0] == 0
