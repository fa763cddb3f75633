"""Streams of a reader that is beside its session's transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import ReaderPool
from tests.helpers import Item
from tests.sessions.beside import Maker, checked_out
from tests.sessions.reading_beside import MANY, read, stream, until_free_of, write


async def test_a_stream_goes_on_across_the_first_write(maker: Maker, reader: AsyncEngine) -> None:
    """It keeps its connection and snapshot, while the rest of the session sees its own writes."""
    async with maker() as session:
        result = await stream(session)
        await write(session)
        assert await read(session) == 1
        rest = await result.all()
        assert len(rest) == MANY - 1
        assert {row.total for row in rest} == {0}
        await session.commit()
        assert checked_out(reader) == 0


async def test_a_stream_goes_on_after_commit_and_rollback(
    maker: Maker, reader: AsyncEngine
) -> None:
    """As on stock, rows can be streamed and written back in transactions of the same session."""
    async with maker() as session:
        result = await stream(session)
        for end in (session.commit, session.rollback, session.commit):
            await write(session)
            assert await result.fetchone() is not None
            await end()
            assert await result.fetchone() is not None
            assert checked_out(reader) == 1
        rest = await result.all()
        assert len(rest) == MANY - 7
        assert {row.total for row in rest} == {0}
        assert await read(session) == 2
        await session.commit()
        assert checked_out(reader) == 0


@pytest.mark.sqlite
async def test_a_stream_keeps_the_log_only_to_its_own_end(maker: Maker, db_log: Any) -> None:
    """Once it has been read, its snapshot ends, although the session still has its connection."""
    async with maker() as session:
        result = await stream(session)
        await session.commit()
        await result.all()
        assert db_log() == 0


@pytest.fixture
def db_log(reader: AsyncEngine) -> Callable[[], int]:
    """Return a function that counts the reader engine's connections with a snapshot."""

    def pinning() -> int:
        assert isinstance(reader.pool, ReaderPool)
        connections = [checkout.connection for checkout in reader.pool.checkouts]
        return sum(c is not None and c.in_transaction for c in connections)

    return pinning


@pytest.mark.parametrize("end", ["close", "reset", "invalidate"])
async def test_closing_the_session_closes_its_streams(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine, end: str
) -> None:
    """Streams of earlier transactions are included: no connection stays checked out."""
    async with maker() as session:
        first = await stream(session)
        await session.commit()
        second = await stream(session)
        await write(session)
        assert checked_out(reader) == 2
        await getattr(session, end)()
        del first, second
        await until_free_of(writer, reader)


async def test_a_synchronous_stream_too(maker: Maker) -> None:
    """The stream is ``yield_per`` in ``run_sync()``."""

    def work(session: Session) -> int:
        total = 0
        for item in session.scalars(select(Item).execution_options(yield_per=1)):
            session.execute(update(Item).where(Item.id == item.id).values(amount=item.id))
            total += item.id
            session.commit()
        return total

    async with maker() as session:
        assert await session.run_sync(work) == 6
        assert await read(session) == 6
