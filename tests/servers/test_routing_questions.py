"""Queries about the session open no connection, and a write needs no replica."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sa_sqlite_pool import routing_sessionmaker

from .models import Account
from .routed import Routed


async def test_a_question_sends_the_session_nowhere(routed: Routed) -> None:
    """``get_bind()`` opens no connection, and the next read still uses the replica."""
    async with routed.maker() as session:
        assert session.get_bind().dialect.name == "postgresql"
        assert session.sync_session.get_bind(clause=update(Account)) is routed.writer.sync_engine
        assert await routed.in_transaction() == 0
        await session.scalar(select(Account.balance))
    assert routed.went == ["reader"]


@asynccontextmanager
async def without_replica(routed: Routed) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Return a session maker whose replica cannot be reached, because nothing listens there."""
    nowhere = routed.app.url().set(port=1)
    reader = create_async_engine(nowhere)
    try:
        yield routing_sessionmaker(writer=routed.writer, reader=reader)
    finally:
        await reader.dispose()


async def test_a_write_asks_no_replica(routed: Routed) -> None:
    """An ORM ``update()`` without a prior read, a flush and a lock work with the replica down."""
    async with without_replica(routed) as maker, maker() as session:
        await session.execute(
            update(Account).where(Account.id == 1).values(balance=1),
            execution_options={"synchronize_session": "fetch"},
        )
        session.add(Account(id=2))
        await session.flush()
        await session.get_one(Account, 1, with_for_update=True, populate_existing=True)
        await session.commit()
    async with without_replica(routed) as maker, maker() as session:
        with pytest.raises(Exception, match="onnect"):
            await session.scalar(select(Account.balance))
        await session.execute(update(Account).values(balance=3))
        await session.commit()
    assert await routed.balance() == 3
