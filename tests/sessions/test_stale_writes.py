"""Writes after a read that is out of date."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    OpenReadError,
    StaleReadError,
    WriterPool,
    WriteTimeout,
    routing_sessionmaker,
)
from tests.conftest import MakeEngine
from tests.helpers import (
    UPDATE_FIRST,
    create_items,
    until,
)
from tests.sessions.beside import Maker, checked_out
from tests.sessions.reading_beside import committed, read, stream, write

pytestmark = pytest.mark.sqlite


@pytest.fixture
def strict(maker: Maker, writer: AsyncEngine, reader: AsyncEngine) -> Maker:
    return routing_sessionmaker(writer=writer, reader=reader, refuse_stale_writes=True)


@pytest.mark.parametrize("nested", [False, True])
async def test_a_stale_write_stays_refused(
    strict: Maker, maker: Maker, reader: AsyncEngine, nested: bool
) -> None:
    """It is refused until the transaction ends, because a retry does not refresh earlier reads."""
    async with strict() as session:
        await read(session)
        await committed(maker)
        for _ in range(2):
            with pytest.raises(StaleReadError):
                if nested:
                    async with session.begin_nested():
                        await write(session)
                else:
                    await write(session)
        await session.rollback()
        await read(session)
        await write(session)
        assert checked_out(reader) == 0
        await session.commit()
        assert await read(session) == 2


async def test_a_stale_write_is_noticed_after_a_time_out_too(
    make_engine: MakeEngine, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """The comparison is still pending when the writer is acquired at the second try."""
    await create_items(writer)
    impatient = make_engine(WriterPool, write_timeout=0.05)
    strict = routing_sessionmaker(writer=impatient, reader=reader, refuse_stale_writes=True)
    held, tried, free = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def try_twice() -> None:
        async with strict() as session:
            await read(session)
            await held.wait()
            with pytest.raises(WriteTimeout):
                await write(session)
            tried.set()
            await free.wait()
            with pytest.raises(StaleReadError):
                await write(session)

    task = asyncio.create_task(try_twice())
    async with writer.begin() as holder:
        await holder.execute(UPDATE_FIRST)
        await until(lambda: checked_out(reader) == 1)
        held.set()
        await tried.wait()
    free.set()
    await task


async def test_a_stale_write_beside_a_stream_cannot_be_told(strict: Maker) -> None:
    """It is refused by name before anything is written."""
    async with strict() as session:
        result = await stream(session)
        with pytest.raises(OpenReadError, match="refuse_stale_writes cannot tell"):
            await write(session)
        await result.close()
        await write(session)
        await session.commit()
