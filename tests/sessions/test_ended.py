"""A session whose block has ended raises an error instead of silently beginning again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import SessionEndedError, SQLiteDatabase
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, turn_of
from tests.sessions.beside import checked_out

Door = Callable[[SQLiteDatabase], AbstractAsyncContextManager[AsyncSession]]
DOORS: dict[str, Door] = {
    "db.read()": lambda db: db.read(),
    "db.write()": lambda db: db.write(),
}


@pytest.fixture
async def items(db: SQLiteDatabase) -> SQLiteDatabase:
    await create_items(db.writer_engine)
    return db


async def add(session: AsyncSession) -> None:
    session.add(Item(id=9))


async def iterate(session: AsyncSession) -> None:
    await (await session.stream(select(Item))).all()


USES: dict[str, Callable[[AsyncSession], Awaitable[Any]]] = {
    "execute": lambda s: s.execute(UPDATE_FIRST),
    "scalars": lambda s: s.scalars(select(Item)),
    "get": lambda s: s.get(Item, 1),
    "stream": iterate,
    "add": add,
    "merge": lambda s: s.merge(Item(id=1)),
    "connection": lambda s: s.connection(),
    "commit": lambda s: s.commit(),
    "begin": lambda s: s.begin().start(),
    "begin_nested": lambda s: s.begin_nested().start(),
    "run_sync": lambda s: s.run_sync(lambda sync: sync.execute(text("SELECT 1"))),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("door", DOORS)
async def test_every_use_is_refused_at_once(
    items: SQLiteDatabase, path: Path, door: str, name: str
) -> None:
    """It is refused by name, with the way out; nothing is executed, checked out, or held."""
    async with DOORS[door](items) as session:
        await session.get(Item, 1)
    for _ in range(2):
        with pytest.raises(SessionEndedError, match=r"begin a new one.*background task") as caught:
            await USES[name](session)
        assert f"from {door}" in str(caught.value)
        assert f"async with {door} as session" in str(caught.value)
        assert isinstance(caught.value, InvalidRequestError)
    assert not session.in_transaction()
    assert turn_of(path).holder is None
    assert checked_out(items.writer_engine, items.reader_engine) == 0
    assert await amounts(items.reader_engine) == [0, 0, 0]


@pytest.mark.parametrize("door", DOORS)
async def test_what_has_ended_can_be_cleaned_up(items: SQLiteDatabase, door: str) -> None:
    """Closing and rolling back do nothing, any number of times, and queries are answered."""
    async with DOORS[door](items) as session:
        pass
    await session.rollback()
    await session.close()
    await session.close()
    session.expunge_all()
    assert not session.new
    assert session.get_bind().dialect.name == "sqlite"
    async with session:
        pass


@pytest.mark.parametrize("door", DOORS)
async def test_a_block_that_raised_has_ended_too(items: SQLiteDatabase, door: str) -> None:
    """This includes a block that was cancelled, or left before its first statement."""
    sessions: list[AsyncSession] = []

    async def leave(error: BaseException) -> None:
        async with DOORS[door](items) as session:
            sessions.append(session)
            raise error

    for error in (ZeroDivisionError(), asyncio.CancelledError(), GeneratorExit()):
        with pytest.raises(type(error)):
            await leave(error)
    for session in sessions:
        with pytest.raises(SessionEndedError):
            await session.get(Item, 1)


async def test_a_commit_that_fails_has_ended_the_block(items: SQLiteDatabase) -> None:
    """Its error is raised, and nothing continues."""
    async with items.writer_engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE parts (item REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)")
        )
    with pytest.raises(Exception, match="FOREIGN KEY"):
        async with items.write() as session:
            await session.execute(text("INSERT INTO parts VALUES (77)"))
    with pytest.raises(SessionEndedError):
        await session.get(Item, 1)


@pytest.mark.parametrize("door", DOORS)
async def test_loaded_objects_stay_usable(items: SQLiteDatabase, door: str) -> None:
    """They can also be added to another session."""
    async with DOORS[door](items) as session:
        item = await session.get_one(Item, 1)
    assert item.amount == 0
    async with items.write() as other:
        other.add(item)
        item.amount = 3
    assert (await amounts(items.reader_engine))[0] == 3


@pytest.mark.parametrize("door", DOORS)
async def test_within_the_block_it_may_end_and_begin_transactions(
    items: SQLiteDatabase, door: str
) -> None:
    """A commit, a rollback or a close inside the block ends only the transaction."""
    async with DOORS[door](items) as session:
        for end in (session.commit, session.rollback, session.close):
            assert await session.get(Item, 1) is not None
            await end()
        assert await session.get(Item, 1) is not None


async def test_sessions_of_the_maker_begin_again(items: SQLiteDatabase) -> None:
    """Without a block, there is no end: SQLAlchemy's own rule applies."""
    async with items.sessionmaker() as session:
        await session.get(Item, 1)
    async with session:
        assert await session.get(Item, 1) is not None
