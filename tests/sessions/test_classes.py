"""Sessions of the application's own class, through every door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

import sa_sqlite_pool
from sa_sqlite_pool import (
    ConfigurationError,
    DatabaseClosedError,
    RoutedAsyncSession,
    RoutedSession,
    ServerDatabase,
    SQLiteDatabase,
    routing_sessionmaker,
)
from sa_sqlite_pool.sessions.lean import LeanSession
from sa_sqlite_pool.sessions.maker import routed_class
from tests.helpers import Base, Item, create_items
from tests.sessions.beside import Heard


class OwnSync(Session):
    """A class with a method, a constructor, and an override of its own."""

    def __init__(self, bind: Any = None, *, tenant: str = "none", **kw: Any) -> None:
        super().__init__(bind, **kw)
        self.tenant = tenant

    def count(self) -> int:
        return int(self.scalar(select(func.count()).select_from(Item)) or 0)


def count(session: Session) -> int:
    assert isinstance(session, OwnSync)
    return session.count()


class Own(AsyncSession):
    """A class with a method, a constructor, and overrides of its own."""

    sync_session_class = OwnSync
    sync_session: OwnSync

    def __init__(self, bind: Any = None, *, user: str = "nobody", **kw: Any) -> None:
        super().__init__(bind, **kw)
        self.user = user
        self.commits = 0

    async def exec(self, statement: Any) -> Any:
        return await self.execute(statement)

    async def commit(self) -> None:
        self.commits += 1
        await super().commit()


Make = Callable[..., Any]


@pytest.fixture(params=["maker", "facade"])
async def make(
    request: pytest.FixtureRequest, database: str, writer: AsyncEngine, reader: AsyncEngine
) -> AsyncIterator[Make]:
    """Yield ``make(class_)``, which returns a session maker of either door; three items exist."""
    await create_items(writer)
    databases: list[SQLiteDatabase | ServerDatabase] = []

    async def made(class_: type[AsyncSession]) -> async_sessionmaker[Any]:
        if request.param == "maker":
            return routing_sessionmaker(writer=writer, reader=reader, class_=class_)
        url = request.getfixturevalue("path" if database == "sqlite" else "server_url")
        facade = SQLiteDatabase if database == "sqlite" else ServerDatabase
        db = await facade(url, session_class=class_).open()
        databases.append(db)
        return db.sessionmaker

    yield made
    for db in databases:
        await db.close()


async def test_a_class_of_the_application(make: Make) -> None:
    """Its methods, constructors, overrides and synchronous class are present."""
    maker = await make(Own)
    async with maker(user="ann", tenant="acme") as session:
        assert isinstance(session, Own)
        assert isinstance(session, RoutedAsyncSession)
        assert isinstance(session.sync_session, OwnSync)
        assert isinstance(session.sync_session, RoutedSession)
        assert (session.user, session.sync_session.tenant) == ("ann", "acme")
        assert len((await session.exec(select(Item))).all()) == 3
        assert await session.run_sync(count) == 3
        session.add(Item(id=9))
        await session.commit()
        assert session.commits == 1
        assert await session.run_sync(count) == 4


async def test_it_is_routed(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """It reads, uses savepoints and writes like any routed session."""
    await create_items(writer)
    heard = Heard().watch(writer=writer, reader=reader)
    maker = routing_sessionmaker(writer=writer, reader=reader, class_=Own)
    async with maker() as session, session.begin():
        await session.exec(select(Item))
        async with session.begin_nested():
            session.add(Item(id=9))
    assert heard.of("reader") == ["begin", "SELECT", "rollback"]
    assert "INSERT" in heard.of("writer")
    async with maker(role="reader") as session:
        await session.exec(select(Item))
    assert heard.of("reader")[-2:] == ["SELECT", "rollback"]


async def test_through_the_facade(path: Path) -> None:
    """``db.read()``, ``db.write()`` and ``db.read(long=True)`` return sessions of the class."""
    async with SQLiteDatabase(path, session_class=Own) as db:
        await create_items(db.writer_engine)
        async with db.write() as session:
            assert isinstance(session, Own)
            session.add(Item(id=9))
        for long in (False, True):
            async with db.read(long=long) as session:
                assert isinstance(session, Own)
                assert await session.run_sync(count) == 4


async def test_all_is_of_the_drop_in_classes(path: Path) -> None:
    """``isinstance`` holds with this package's names, which are SQLAlchemy's to a type checker."""
    async with SQLiteDatabase(path, session_class=Own) as db:
        routed = routing_sessionmaker(writer=db.writer_engine, reader=db.reader_engine)
        for maker in (db.sessionmaker, routed):
            assert isinstance(maker, sa_sqlite_pool.async_sessionmaker)
        async with db.read() as read, db.sessionmaker() as auto, routed() as other:
            for session in (read, auto, other):
                assert isinstance(session, sa_sqlite_pool.AsyncSession)
            assert isinstance(await read.connection(), sa_sqlite_pool.AsyncConnection)
        for engine in (db.writer_engine, db.reader_engine):
            assert isinstance(engine, sa_sqlite_pool.AsyncEngine)


def test_it_keeps_what_makes_sessions_lean() -> None:
    """SQLAlchemy's own methods run in reused greenlets; the class's methods take precedence."""
    routed: Any = routed_class(Own)
    assert routed.execute is LeanSession.execute
    assert routed.close is LeanSession.close
    assert routed.commit is Own.commit
    assert routed.__name__ == "Own"
    assert routed.__module__ == Own.__module__
    assert routed.__doc__ == Own.__doc__


def test_a_class_is_made_once() -> None:
    """A class that is already routed is used unchanged."""

    class Derived(RoutedAsyncSession):
        pass

    assert routed_class(Own) is routed_class(Own)
    assert routed_class(AsyncSession) is RoutedAsyncSession
    assert routed_class(RoutedAsyncSession) is RoutedAsyncSession
    assert routed_class(Derived) is Derived


def test_a_routed_class_with_a_synchronous_one_that_is_not() -> None:
    """The synchronous one is routed, too."""

    class Derived(RoutedAsyncSession):
        sync_session_class = OwnSync  # type: ignore[assignment]

    routed: Any = routed_class(Derived)
    assert issubclass(routed, Derived)
    assert issubclass(routed.sync_session_class, RoutedSession)
    assert issubclass(routed.sync_session_class, OwnSync)


async def test_a_synchronous_class_by_keyword(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """``sync_session_class=`` works for the maker or for one session, as in SQLAlchemy."""
    await create_items(writer)
    for maker, options in (
        (routing_sessionmaker(writer=writer, reader=reader, sync_session_class=OwnSync), {}),
        (routing_sessionmaker(writer=writer, reader=reader), {"sync_session_class": OwnSync}),
    ):
        async with maker(**options) as session:
            assert isinstance(session.sync_session, RoutedSession)
            assert await session.run_sync(count) == 3


@pytest.mark.parametrize("class_", [object, Session, "AsyncSession", lambda **_: None])
def test_what_is_no_session_is_refused(
    writer: AsyncEngine, reader: AsyncEngine, class_: Any
) -> None:
    """It is refused at construction, naming what is accepted."""
    with pytest.raises(ConfigurationError, match="pass a subclass of AsyncSession"):
        routing_sessionmaker(writer=writer, reader=reader, class_=class_)
    with pytest.raises(ConfigurationError, match="pass a subclass of AsyncSession"):
        SQLiteDatabase("app.db", session_class=class_)


def test_a_synchronous_class_that_is_a_function_is_refused(
    writer: AsyncEngine, reader: AsyncEngine
) -> None:
    """SQLAlchemy accepts any callable, but routing needs a class to derive from."""

    class Made(AsyncSession):
        sync_session_class = partial(Session)  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="is a subclass of Session"):
        routing_sessionmaker(writer=writer, reader=reader, class_=Made)


async def test_a_constructor_that_asks_nobody(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """One that calls ``AsyncSession.__init__`` by name skips ours, and works nevertheless."""

    class Stubborn(AsyncSession):
        def __init__(self, *args: Any, **kw: Any) -> None:
            AsyncSession.__init__(self, *args, **kw)

    await create_items(writer)
    heard = Heard().watch(writer=writer, reader=reader)
    maker = routing_sessionmaker(writer=writer, reader=reader, class_=Stubborn)
    for role in ("auto", "reader"):
        async with maker(role=role) as session:
            assert len((await session.scalars(select(Item))).all()) == 3
    assert heard.of("writer") == []


# -- a get_bind of its own -------------------------------------------------------------------------


async def test_a_get_bind_of_its_own(path: Path, writer: AsyncEngine, reader: AsyncEngine) -> None:
    """Its own results are respected; what it leaves to ``super()`` is routed."""
    other = create_async_engine(f"sqlite+aiosqlite:///{path.with_name('other.db')}")

    class Sharded(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None, **kw: Any) -> Engine:
            if self.info.get("shard"):
                return other.sync_engine
            return super().get_bind(mapper, clause=clause, **kw)  # type: ignore[return-value]

    class ShardedAsync(AsyncSession):
        sync_session_class = Sharded

    try:
        await create_items(writer)
        async with other.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        heard = Heard().watch(writer=writer, reader=reader, other=other)
        maker = routing_sessionmaker(writer=writer, reader=reader, class_=ShardedAsync)
        async with maker(info={"shard": True}) as session:
            assert (await session.scalars(select(Item))).all() == []
            session.add(Item(id=1))
            await session.flush()
            await session.rollback()
        assert {line.partition(":")[0] for line in heard} == {"other"}
        async with maker() as session:
            assert len((await session.scalars(select(Item))).all()) == 3
            await session.get(Item, 1, with_for_update=True)
        assert heard.of("reader") == ["begin", "SELECT", "rollback"]
        assert heard.of("writer") == ["begin", "SELECT", "rollback"]
    finally:
        await other.dispose()


async def test_events_of_a_class(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """Listeners to the application's synchronous class, or its maker, receive its events."""
    heard: list[str] = []

    class Listened(Session):
        pass

    class ListenedAsync(AsyncSession):
        sync_session_class = Listened

    event.listen(Listened, "before_flush", lambda *_: heard.append("class"))
    await create_items(writer)
    maker = routing_sessionmaker(writer=writer, reader=reader, class_=ListenedAsync)
    async with maker() as session:
        session.add(Item(id=9))
        await session.flush()
    assert heard == ["class"]


# -- scoped sessions -------------------------------------------------------------------------------


async def test_scoped_sessions(path: Path) -> None:
    """There is one per task, by ``async_scoped_session``, made before the database is open."""
    db = SQLiteDatabase(path, session_class=Own)
    scoped = async_scoped_session(db.sessionmaker, scopefunc=asyncio.current_task)
    with pytest.raises(DatabaseClosedError, match="is not open"):
        scoped()
    async with db:
        await create_items(db.writer_engine)

        async def add(number: int) -> AsyncSession:
            assert len((await scoped.scalars(select(Item).where(Item.id < 4))).all()) == 3
            assert scoped.get_bind() is db.writer_engine.sync_engine
            async with scoped.begin_nested():
                scoped.add(Item(id=number))
            await scoped.commit()
            session = scoped()
            await scoped.remove()
            return session

        sessions = await asyncio.gather(*map(add, range(10, 15)))
        assert len({id(session) for session in sessions}) == 5
        assert all(isinstance(session, Own) for session in sessions)
        async with db.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM items")) == 8
    with pytest.raises(DatabaseClosedError, match="was closed"):
        scoped()


# -- neighbours ------------------------------------------------------------------------------------


async def test_sqlmodel(make: Make) -> None:
    """``exec()`` of its sessions works through both doors."""
    sqlmodel = pytest.importorskip("sqlmodel")
    session_module = pytest.importorskip("sqlmodel.ext.asyncio.session")
    maker = await make(session_module.AsyncSession)
    async with maker() as session, session.begin():
        found = await session.exec(sqlmodel.select(Item).where(Item.id == 1))
        assert found.one().amount == 0
        async with session.begin_nested():
            session.add(Item(id=9))
        assert (await session.exec(sqlmodel.select(Item.id).where(Item.id == 9))).one() == 9
    async with maker(role="reader") as session:
        assert len((await session.exec(sqlmodel.select(Item))).all()) == 4


async def test_advanced_alchemy(make: Make) -> None:
    """Its repository asks the session for its dialect, and works with a routed one."""
    repository_module = pytest.importorskip("advanced_alchemy.repository")

    class Items(repository_module.SQLAlchemyAsyncRepository):  # type: ignore[misc,name-defined]
        model_type = Item

    maker = await make(AsyncSession)
    async with maker() as session:
        items = Items(session=session)
        await items.add_many([Item(id=number) for number in (8, 9)])
        await items.upsert_many([Item(id=1, amount=5), Item(id=10)])
        await session.commit()
    async with maker() as session:
        items = Items(session=session)
        assert await items.count() == 6
        assert (await items.get(1)).amount == 5
