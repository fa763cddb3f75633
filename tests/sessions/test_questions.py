"""A query about a session opens nothing, pins nothing, and does not route an auto session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.helpers import Item
from tests.sessions.beside import Heard, Maker, checked_out


def dialect(bind: Any) -> str:
    return str(bind.dialect.name)


QUESTIONS: dict[str, Callable[[AsyncSession], object]] = {
    "get_bind()": lambda s: s.get_bind(),
    "get_bind(mapper)": lambda s: s.get_bind(Item),
    "get_bind(a write)": lambda s: s.get_bind(clause=insert(Item)),
    "get_bind(a read)": lambda s: s.get_bind(clause=select(Item)),
    "get_bind(a temp table)": lambda s: s.get_bind(clause=text("CREATE TEMP TABLE a (b)")),
    "bind": lambda s: dialect(s.bind),
    "sync bind": lambda s: dialect(s.sync_session.bind),
    "compiling": lambda s: str(update(Item).compile(dialect=s.get_bind().dialect)),
    "a query as text": lambda s: str(s.sync_session.query(Item)),
    "the default engine's name": lambda s: dialect(s.sync_session.get_bind(Item)),
    "new objects": lambda s: (s.new, s.dirty, s.deleted, s.is_active, s.in_transaction()),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_question_changes_nothing(
    maker: Maker, heard: Heard, writer: AsyncEngine, reader: AsyncEngine, name: str
) -> None:
    """This holds before the first read, between two reads, and before the first write."""
    async with maker() as session:
        QUESTIONS[name](session)
        assert not session.in_transaction()
        assert checked_out(writer, reader) == 0
        await session.scalars(select(Item))
        QUESTIONS[name](session)
        await session.scalars(select(Item))
        assert heard == ["reader: begin", "reader: SELECT", "reader: SELECT"]
        assert checked_out(writer) == 0
        QUESTIONS[name](session)
        await session.execute(update(Item).values(amount=1))
        assert heard[-2:] == ["writer: begin", "writer: UPDATE"]


async def test_a_question_about_a_read_does_not_decide_what_follows(
    maker: Maker, heard: Heard
) -> None:
    """A bare connection requested next is the writer's nevertheless."""
    async with maker() as session:
        session.get_bind(clause=select(Item))
        await (await session.connection()).execute(select(Item))
    assert heard.of("reader") == []


async def test_answers(maker: Maker, writer: AsyncEngine, reader: AsyncEngine) -> None:
    """Each role returns the engine that it is for; an auto session returns the default."""
    for role, engine in (("auto", writer), ("writer", writer), ("reader", reader)):
        async with maker(role=role) as session:
            assert session.get_bind() is engine.sync_engine
            assert session.bind is engine
            assert session.sync_session.bind is engine.sync_engine


async def test_answers_in_asyncio_objects(
    maker: Maker, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """get_async_bind() is included if SQLAlchemy has it."""
    async with maker() as session:
        if not hasattr(AsyncSession, "get_async_bind"):
            pytest.skip("SQLAlchemy 2.0")
        assert session.get_async_bind() is writer
        assert session.get_async_bind(clause=select(Item)) is reader
        assert session.get_async_bind(bind=reader) is reader


@pytest.mark.parametrize("way", ["evaluate", "fetch", "auto", False])
@pytest.mark.parametrize("make", [update, delete])
async def test_synchronizing_asks_for_the_dialect(
    maker: Maker, heard: Heard, way: object, make: Any
) -> None:
    """Bulk DML of the ORM is sent only to the writer, and loaded objects are updated."""
    statement = make(Item).where(Item.amount == 0)
    if make is update:
        statement = statement.values(amount=5)
    async with maker() as session:
        item = await session.get_one(Item, 1)
        del heard[:]
        await session.execute(statement, execution_options={"synchronize_session": way})
        assert heard.of("reader") in ([], ["rollback"])
        assert not any("SELECT" in line for line in heard)
        if way:
            assert item not in session if make is delete else item.amount == 5


class OwnBase(DeclarativeBase):
    pass


class WithoutReturning(OwnBase):
    """The table ``items``, with RETURNING disabled for the dialect."""

    __tablename__ = "items"
    __table_args__ = {"implicit_returning": False}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


async def test_what_is_about_to_be_changed_is_read_where_it_is_changed(
    maker: Maker, heard: Heard
) -> None:
    """With synchronize_session="fetch" but no RETURNING, SELECT and UPDATE belong together."""
    async with maker() as session:
        item = await session.get_one(WithoutReturning, 1)
        del heard[:]
        await session.execute(
            update(WithoutReturning).values(amount=6),
            execution_options={"synchronize_session": "fetch"},
        )
        assert heard == ["reader: rollback", "writer: begin", "writer: SELECT", "writer: UPDATE"]
        assert item.amount == 6


async def test_what_a_flush_reads_it_reads_where_it_writes(maker: Maker, heard: Heard) -> None:
    """A listener that looks for duplicates sees what the flush will meet."""
    async with maker() as session:

        def look(sync_session: Session, *_: object) -> None:
            sync_session.execute(select(Item.id))

        event.listen(session.sync_session, "before_flush", look)
        session.add(Item(id=9))
        await session.flush()
        assert heard.of("reader") == []
        assert heard.of("writer") == ["begin", "SELECT", "INSERT"]
