"""Savepoints of an auto session, in which its reader takes no part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.helpers import Item
from tests.sessions.beside import Heard, Maker, checked_out


async def ids(session: AsyncSession) -> list[int]:
    return list(await session.scalars(select(Item.id).order_by(Item.id)))


async def get_or_create(session: AsyncSession) -> None:
    """Read, then open a savepoint with the first write in it."""
    assert await session.get(Item, 9) is None
    async with session.begin_nested():
        session.add(Item(id=9))


async def fails_in_savepoint(session: AsyncSession) -> None:
    """The application's own error is the one that is raised, and the rest is kept."""
    await ids(session)
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            session.add(Item(id=1))
    session.add(Item(id=9))


async def rolled_back(session: AsyncSession) -> None:
    """The state before the savepoint is restored afterwards."""
    await ids(session)
    nested = await session.begin_nested()
    session.add(Item(id=8))
    await session.flush()
    await nested.rollback()
    assert await ids(session) == [1, 2, 3]
    session.add(Item(id=9))


async def never_writes(session: AsyncSession) -> None:
    """Open two savepoints around reads only, release one, and roll the other back."""
    async with session.begin_nested():
        await ids(session)
    nested = await session.begin_nested()
    await ids(session)
    await nested.rollback()
    await ids(session)
    assert not session.in_nested_transaction()


async def nested_twice(session: AsyncSession) -> None:
    """The first write is two savepoints deep, and each is released."""
    await ids(session)
    async with session.begin_nested():
        await ids(session)
        async with session.begin_nested():
            session.add(Item(id=9))
        assert await ids(session) == [1, 2, 3, 9]
    assert await ids(session) == [1, 2, 3, 9]


async def inner_rolled_back(session: AsyncSession) -> None:
    """The inner of two savepoints is rolled back, and the outer one is not."""
    await ids(session)
    async with session.begin_nested():
        session.add(Item(id=9))
        await session.flush()
        inner = await session.begin_nested()
        session.add(Item(id=8))
        await session.flush()
        await inner.rollback()
        assert await ids(session) == [1, 2, 3, 9]


PROGRAMS: list[tuple[Callable[[AsyncSession], Awaitable[None]], list[int]]] = [
    (get_or_create, [1, 2, 3, 9]),
    (fails_in_savepoint, [1, 2, 3, 9]),
    (rolled_back, [1, 2, 3, 9]),
    (never_writes, [1, 2, 3]),
    (nested_twice, [1, 2, 3, 9]),
    (inner_rolled_back, [1, 2, 3, 9]),
]


@pytest.mark.parametrize(
    ("program", "expected"), PROGRAMS, ids=lambda value: getattr(value, "__name__", None)
)
async def test_savepoints_are_the_writers(
    maker: Maker,
    heard: Heard,
    writer: AsyncEngine,
    reader: AsyncEngine,
    program: Callable[[AsyncSession], Awaitable[None]],
    expected: list[int],
) -> None:
    """The reader receives only its SELECTs and the end of its transaction.

    The exception is PostgreSQL, where an error within a savepoint would abort the transaction.
    """
    async with maker() as session, session.begin():
        await program(session)
    own = {"begin", "SELECT", "rollback"}
    if reader.dialect.name == "postgresql":
        own |= {"SAVEPOINT", "RELEASE", "ROLLBACK"}
        own |= {"savepoint", "release_savepoint", "rollback_savepoint"}
    assert set(heard.of("reader")) <= own
    assert heard.of("reader").count("begin") == heard.of("reader").count("rollback")
    assert checked_out(writer, reader) == 0
    async with maker() as session:
        assert await ids(session) == expected


async def test_nothing_but_the_writer_is_in_the_transaction(maker: Maker) -> None:
    """This serves code that asks SQLAlchemy for the connections of a transaction."""
    async with maker() as session:
        await ids(session)
        transaction = session.sync_session.get_transaction()
        assert transaction is not None
        assert transaction._connections == {}
        session.add(Item(id=9))
        await session.flush()
        engines = {connection.engine for connection, *_ in transaction._connections.values()}
        assert engines == {maker.kw["writer"].sync_engine}
