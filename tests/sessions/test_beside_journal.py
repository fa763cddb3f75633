"""A reader beside its session's transaction, without WAL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    OpenReadError,
    ReaderPool,
    WriterPool,
    routing_sessionmaker,
)
from tests.conftest import MakeEngine
from tests.helpers import (
    Item,
    create_items,
)
from tests.sessions.beside import Maker
from tests.sessions.reading_beside import MANY, read, stream, write

pytestmark = pytest.mark.sqlite


@pytest.fixture
async def journal(make_engine: MakeEngine) -> Maker:
    """Return a maker of auto sessions over a rollback journal."""
    options: dict[str, Any] = {"pragmas": {"journal_mode": "TRUNCATE"}}
    writer = make_engine(WriterPool, **options)
    await create_items(writer)
    return routing_sessionmaker(writer=writer, reader=make_engine(ReaderPool, **options))


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("pending", [False, True])
async def test_without_wal_a_stream_in_the_way_of_its_commit_is_named_at_once(
    journal: Maker, earlier: bool, pending: bool
) -> None:
    """It would wait for itself; once the stream is closed, the same COMMIT can continue."""
    async with journal() as session:
        result = await stream(session)
        if earlier:
            await session.commit()
        session.add(Item(id=9, amount=1))
        if not pending:
            await session.flush()
        for _ in range(2):
            with pytest.raises(
                OpenReadError, match=r"would wait for itself.*an open stream.*close it"
            ):
                await session.commit()
        assert await result.fetchone() is not None
        await result.close()
        await session.commit()
        assert await read(session) == 1


async def test_without_wal_a_block_with_a_stream_in_the_way_is_rolled_back(
    journal: Maker, reader: AsyncEngine
) -> None:
    """It is rolled back as after any error of a COMMIT."""
    async with journal() as session:
        with pytest.raises(OpenReadError):
            async with session.begin():
                await stream(session)
                await write(session)
        assert await read(session) == 0


async def test_without_wal_a_stream_does_not_wait_for_a_turn(journal: Maker) -> None:
    """The holder would wait for the stream, and its session for the holder; both are named."""

    async def other() -> None:
        async with journal(role="writer") as session:
            await write(session)
            held.set()
            await done.wait()
            await session.commit()

    held, done = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(other(), name="import-42")
    await held.wait()
    async with journal() as session:
        result = await stream(session)
        with pytest.raises(
            OpenReadError, match=r"held by task 'import-42'.*wait for an open stream"
        ):
            await write(session)
        await result.close()
        done.set()
        await write(session)
        await session.commit()
        assert await read(session) == 2
    await holder


async def test_without_wal_a_commit_that_writes_nothing_is_in_nobodys_way(journal: Maker) -> None:
    """The stream can still be read afterwards."""
    async with journal() as session:
        result = await stream(session)
        await session.commit()
        assert len(await result.all()) == MANY - 1


async def test_without_wal_what_has_ended_is_in_nobodys_way(journal: Maker) -> None:
    """This applies to a stream that was read to its end, and to all other reads."""
    async with journal() as session:
        await (await stream(session)).all()
        await read(session)
        await write(session)
        await session.commit()
        assert await read(session) == 1
