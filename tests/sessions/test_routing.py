"""Door 2: the engine to which a session's statements are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.schema import CreateTable

from sa_sqlite_pool import (
    ConfigurationError,
    RoutedAsyncSession,
    StaleReadError,
    routing_sessionmaker,
)
from tests.conftest import StatementLog
from tests.helpers import Base, Item, amounts, create_items

Maker = async_sessionmaker[AsyncSession]
Step = Callable[[AsyncSession], Awaitable[object]]


class Routes(list[str]):
    """The target of each statement: ``reader`` or ``writer``."""

    def watch(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        for name, engine in (("writer", writer), ("reader", reader)):
            log = StatementLog()
            log.append = lambda _statement, name=name: self.append(name)  # type: ignore[method-assign,misc]
            log.watch(engine)


@pytest.fixture
def routes(maker: Maker, writer: AsyncEngine, reader: AsyncEngine) -> Routes:
    heard = Routes()
    heard.watch(writer, reader)
    return heard


# -- auto sessions ------------------------------------------------------------------------------


async def add_and_flush(session: AsyncSession) -> None:
    session.add(Item(id=30))
    await session.flush()


async def flush_without_autoflush(session: AsyncSession) -> None:
    with session.no_autoflush:
        session.add(Item(id=30))
        await session.flush()


async def change_and_autoflush(session: AsyncSession) -> None:
    (await session.get_one(Item, 1)).amount = 5
    await session.scalars(select(Item))


FIRST_WRITES: dict[str, tuple[Step, list[str]]] = {
    "flush": (add_and_flush, ["writer"]),
    "flush inside no_autoflush": (flush_without_autoflush, ["writer"]),
    "autoflush before a read": (change_and_autoflush, ["reader", "writer", "writer"]),
    "bulk insert": (
        lambda s: s.execute(insert(Item), [{"id": 31}, {"id": 32}]),
        ["writer"],
    ),
    "bulk update by primary key": (
        lambda s: s.execute(update(Item), [{"id": 1, "amount": 9}]),
        ["writer"],
    ),
    "ORM update, synchronize fetch": (
        lambda s: s.execute(
            update(Item).values(amount=2), execution_options={"synchronize_session": "fetch"}
        ),
        ["writer"],
    ),
    "ORM delete": (lambda s: s.execute(delete(Item).where(Item.id == 3)), ["writer"]),
    "insert returning": (
        lambda s: s.scalars(insert(Item).returning(Item), [{"id": 31}]),
        ["writer"],
    ),
    "text": (lambda s: s.execute(text("DELETE FROM items")), ["writer"]),
    "CTE with DML at the end": (
        lambda s: s.execute(
            text("WITH a AS (SELECT 1 AS id) DELETE FROM items WHERE id IN (SELECT id FROM a)")
        ),
        ["writer"],
    ),
    "with_for_update": (lambda s: s.get(Item, 1, with_for_update=True), ["writer"]),
    "DDL": (
        lambda s: s.execute(CreateTable(Base.metadata.tables["items"], if_not_exists=True)),
        ["writer"],
    ),
    "parameters in text": (
        lambda s: s.execute(text("UPDATE items SET amount = :a").bindparams(bindparam("a", 1))),
        ["writer"],
    ),
}


@pytest.mark.parametrize("name", FIRST_WRITES)
async def test_an_auto_session_stays_on_the_writer_after_its_first_write(
    maker: Maker, routes: Routes, name: str
) -> None:
    """Reads are sent to the reader, the first write and everything after it to the writer."""
    write, expected = FIRST_WRITES[name]
    async with maker() as session:
        await session.scalars(select(Item.id))
        await write(session)
        await session.scalars(select(Item.id))
        assert routes == ["reader", *expected, "writer"]
        await session.commit()
        await session.scalars(select(Item.id))
        assert routes[-1] == "reader"


async def test_it_reads_its_own_writes(maker: Maker) -> None:
    """It sees them before the commit, when no reader can."""
    async with maker() as session:
        session.add(Item(id=40, amount=4))
        assert await session.scalar(select(Item.amount).where(Item.id == 40)) == 4
        async with maker() as other:
            assert await other.get(Item, 40) is None


async def test_asking_for_the_connection_goes_to_the_writer(maker: Maker, routes: Routes) -> None:
    """The session cannot know what a bare connection will be used for."""
    async with maker() as session:
        connection = await session.connection()
        await connection.execute(text("SELECT 1"))
    assert routes == ["writer"]


async def test_savepoints(maker: Maker, routes: Routes) -> None:
    """A rolled-back savepoint does not return the session to the reader."""
    async with maker() as session, session.begin():
        nested = await session.begin_nested()
        session.add(Item(id=50))
        await session.flush()
        await nested.rollback()
        assert await session.get(Item, 50) is None
    assert set(routes) == {"writer"}


async def test_begin_blocks_and_reused_sessions(maker: Maker, routes: Routes) -> None:
    """Each transaction of a session starts on the reader again."""
    async with maker() as session:
        for number in (60, 61):
            async with session.begin():
                await session.get(Item, 1, populate_existing=True)
                session.add(Item(id=number))
        async with session.begin():
            await session.scalars(select(Item))
        with pytest.raises(ZeroDivisionError):
            async with session.begin():
                session.add(Item(id=62))
                await session.flush()
                raise ZeroDivisionError
        await session.scalars(select(Item))
    assert routes == ["reader", "writer", "reader", "writer", "reader", "writer", "reader"]


async def test_a_new_session_sees_what_was_committed(maker: Maker) -> None:
    """Fresh reads: the next session sees every commit."""
    for number in range(70, 90):
        async with maker() as session:
            session.add(Item(id=number))
            await session.commit()
        async with maker(role="reader") as session:
            assert await session.get(Item, number) is not None


# -- roles -----------------------------------------------------------------------------------------


async def test_roles_decide_from_the_start(maker: Maker, routes: Routes) -> None:
    """role="writer" reads on the writer, too; role="reader" never leaves the reader."""
    async with maker(role="writer") as session:
        await session.get(Item, 1)
    async with maker(role="reader") as session:
        await session.get(Item, 1)
        with pytest.raises(OperationalError, match="use a writer session"):
            await add_and_flush(session)
    assert routes == ["writer", "reader", "reader"]


async def test_a_read_session_sees_one_snapshot(maker: Maker) -> None:
    """Isolated reads: the snapshot lasts from the first statement to the end."""
    async with maker(role="reader") as reading:
        assert await reading.scalar(select(func.sum(Item.amount))) == 0
        async with maker(role="writer") as writing, writing.begin():
            await writing.execute(update(Item).values(amount=7))
        assert await reading.scalar(select(func.sum(Item.amount))) == 0
        await reading.rollback()
        assert await reading.scalar(select(func.sum(Item.amount))) == 21


async def test_a_reader_waits_for_no_writer(maker: Maker) -> None:
    """Free readers: an open write transaction blocks no reader, and is not visible."""
    async with maker(role="writer") as writing, writing.begin():
        await writing.execute(update(Item).values(amount=7))
        async with maker(role="reader") as reading:
            assert await reading.scalar(select(func.sum(Item.amount))) == 0


async def test_an_explicit_bind_wins(maker: Maker, writer: AsyncEngine, routes: Routes) -> None:
    """bind_arguments={"bind": …} is SQLAlchemy's, and respected."""
    async with maker() as session:
        await session.execute(select(Item), bind_arguments={"bind": writer.sync_engine})
    assert routes == ["writer"]


async def test_unknown_roles_and_engines_are_refused(maker: Maker, writer: AsyncEngine) -> None:
    """The message lists the valid choices."""
    with pytest.raises(ConfigurationError, match=r"'auto', 'reader', 'writer', not 'master'"):
        maker(role="master")
    with pytest.raises(ConfigurationError, match="reader must be an AsyncEngine"):
        routing_sessionmaker(writer=writer, reader="app.db")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="pass a subclass of AsyncSession"):
        routing_sessionmaker(writer=writer, reader=writer, class_=object)


async def test_any_two_engines_will_do(path: object) -> None:
    """The routing does not depend on SQLite: two stock engines work as well."""

    class Schema(DeclarativeBase):
        pass

    writer = create_async_engine(f"sqlite+aiosqlite:///{path}")
    reader = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        await create_items(writer)
        heard = Routes()
        heard.watch(writer, reader)
        maker = routing_sessionmaker(writer=writer, reader=reader)
        async with maker() as session:
            await session.scalars(select(Item))
            session.add(Item(id=9))
            await session.commit()
        assert heard == ["reader", "writer"]
    finally:
        await writer.dispose()
        await reader.dispose()


# -- stale reads -----------------------------------------------------------------------------------


@pytest.mark.sqlite
async def test_a_write_after_a_stale_read_can_be_refused(
    writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """refuse_stale_writes: no update is lost silently, and a retry succeeds.

    This session           | Another session
    SELECT amount → 0      |
                           | UPDATE amount = 5; COMMIT
    UPDATE … StaleReadError|
    """
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader, refuse_stale_writes=True)

    async def increase(session: AsyncSession) -> None:
        item = await session.get_one(Item, 1)
        if item.amount == 0:
            async with maker(role="writer") as other, other.begin():
                (await other.get_one(Item, 1)).amount = 5
        item.amount += 1
        await session.commit()

    async with maker() as session:
        with pytest.raises(StaleReadError, match="retry the transaction"):
            await increase(session)
    async with maker() as session:
        await increase(session)
    assert (await amounts(writer))[0] == 6


@pytest.mark.sqlite
async def test_refuse_stale_writes_needs_this_packages_pools(
    path: object, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """Other databases have isolation levels for this. The error is raised at construction."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(ConfigurationError, match="this package's pools"):
        routing_sessionmaker(writer=writer, reader=engine, refuse_stale_writes=True)
    with pytest.raises(ConfigurationError, match="a reader engine separate from the writer"):
        routing_sessionmaker(writer=writer, reader=writer, refuse_stale_writes=True)
    routing_sessionmaker(writer=engine, reader=engine)
    routing_sessionmaker(writer=writer, reader=reader, refuse_stale_writes=True)
    await engine.dispose()


@pytest.mark.sqlite
async def test_a_session_of_its_own_making_needs_them_too(
    path: object, writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """If no maker has checked the engines, the session does."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(ConfigurationError, match="this package's pools"):
        RoutedAsyncSession(writer=writer, reader=engine, refuse_stale_writes=True)
    with pytest.raises(ConfigurationError, match="this package's pools"):
        routing_sessionmaker(writer=writer, reader=engine)(refuse_stale_writes=True)
    RoutedAsyncSession(writer=writer, reader=reader, refuse_stale_writes=True)
    await engine.dispose()
