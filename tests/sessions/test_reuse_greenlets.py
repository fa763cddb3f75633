"""Sessions of other classes, with reused greenlets."""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from greenlet import getcurrent
from sqlalchemy import ForeignKey, event, func, select
from sqlalchemy.ext import asyncio as theirs
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    ConfigurationError,
    RoutedAsyncSession,
    async_sessionmaker,
    create_async_engine,
    reuse_greenlets,
)
from sa_sqlite_pool.compat.greenlets import Spawned
from tests.conftest import Tasks
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", placement="inline")
    await create_items(engine)
    yield engine
    await engine.dispose()


def as_before(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def wrapper(*args: Any, **kw: Any) -> Any:
        return await method(*args, **kw)

    return wrapper


class OwnSync(Session):
    """A class with a method of its own."""

    def count(self) -> int:
        return int(self.scalar(select(func.count()).select_from(Item)) or 0)


class Own(theirs.AsyncSession):
    """A class with its own methods, which call SQLAlchemy's function in several ways."""

    sync_session_class = OwnSync
    sync_session: OwnSync

    def __init__(self, bind: Any = None, *, user: str = "nobody", **kw: Any) -> None:
        super().__init__(bind, **kw)
        self.user = user
        self.commits = 0

    async def commit(self) -> None:
        self.commits += 1
        await super().commit()

    async def count(self) -> int:
        return await greenlet_spawn(self.sync_session.count)

    @as_before
    async def count_wrapped(self, *, more: int = 0) -> int:
        return await greenlet_spawn(self.sync_session.count) + more + defined_later()

    @classmethod
    async def where(cls) -> type:
        return await greenlet_spawn(lambda: type(getcurrent()))


Lean = reuse_greenlets(Own)


def defined_later() -> int:
    """Return a number; this module did not have the function yet when ``Lean`` was created."""
    return 10


async def test_a_class_of_the_application(engine: AsyncEngine) -> None:
    """It is unchanged, and everything in it reuses greenlets, even its own calls."""
    ran_in: set[type] = set()
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *_: ran_in.add(type(getcurrent()))
    )
    async with Lean(engine, user="ann") as session:
        assert isinstance(session, Own)
        assert isinstance(session, AsyncSession)
        assert session.user == "ann"
        assert type(session.sync_session) is OwnSync
        assert await session.count() == 3
        assert await session.count_wrapped(more=1) == 14
        assert len((await session.scalars(select(Item))).all()) == 3
        await session.commit()
        assert session.commits == 1
    assert ran_in == {Spawned}
    assert await Lean.where() is Spawned
    assert await Own.where() is not Spawned
    assert (Lean.__name__, Lean.__module__, Lean.__doc__) == ("Own", __name__, Own.__doc__)


async def test_blocks_need_no_task(engine: AsyncEngine, tasks: Tasks) -> None:
    tasks.clear()
    async with Lean(engine) as session:
        await session.execute(UPDATE_FIRST)
        await session.commit()
    async with async_sessionmaker(engine, class_=Own).begin() as session:
        await session.execute(UPDATE_FIRST)
    assert tasks == []
    assert (await amounts(engine))[0] == 2


async def test_session_makers_do_it_by_themselves(engine: AsyncEngine) -> None:
    """They do so for the application's class; a lean one, or no session, is used unchanged."""
    assert async_sessionmaker(engine, class_=Own).class_ is Lean
    assert async_sessionmaker(engine, class_=Lean).class_ is Lean
    assert async_sessionmaker(engine).class_ is AsyncSession
    assert async_sessionmaker(engine, class_=theirs.AsyncSession).class_ is AsyncSession
    no_class: Any = lambda **kw: kw  # noqa: E731
    assert async_sessionmaker(engine, class_=no_class, info={"a": 1})()["bind"] is engine
    async with async_sessionmaker(engine, sync_session_class=OwnSync)() as session:
        assert type(session.sync_session) is OwnSync


def test_a_class_is_made_once() -> None:
    assert reuse_greenlets(Own) is Lean
    assert reuse_greenlets(Lean) is Lean
    assert reuse_greenlets(theirs.AsyncSession) is AsyncSession
    assert reuse_greenlets(RoutedAsyncSession) is RoutedAsyncSession


@pytest.mark.parametrize("given", [Session, OwnSync, object(), None])
def test_what_is_no_session_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="pass a subclass of AsyncSession"):
        reuse_greenlets(given)


async def test_as_a_decorator(engine: AsyncEngine) -> None:
    @reuse_greenlets
    class Decorated(theirs.AsyncSession):
        """A session class of the application."""

        def __init__(self, bind: Any) -> None:
            super().__init__(bind)
            self.made = True

        async def close(self) -> None:
            self.closed = True
            await super().close()

    async with Decorated(engine) as session:
        assert isinstance(session, AsyncSession)
        assert session.made
        await session.execute(UPDATE_FIRST)
    assert session.closed


async def test_a_begin_of_its_own(engine: AsyncEngine) -> None:
    """``async_sessionmaker.begin()`` begins and ends as the class does."""
    ended: list[object] = []

    class Transaction(theirs.AsyncSessionTransaction):
        async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
            ended.append(type_)
            await super().__aexit__(type_, value, traceback)

    class Begins(theirs.AsyncSession):
        def begin(self) -> theirs.AsyncSessionTransaction:
            return Transaction(self)

    async with async_sessionmaker(engine, class_=Begins).begin() as session:
        await session.execute(UPDATE_FIRST)
    assert ended == [None]
    assert (await amounts(engine))[0] == 1


async def test_connections_of_the_application(path: Path) -> None:
    """A custom class is started by ``start()``, and closes in a separate task, as in
    SQLAlchemy.
    """
    closed_in: list[asyncio.Task[Any] | None] = []
    started: list[bool] = []

    class Connection(AsyncConnection):
        async def start(self, is_ctxmanager: bool = False) -> theirs.AsyncConnection:
            started.append(is_ctxmanager)
            return await super().start(is_ctxmanager)

        async def close(self) -> None:
            closed_in.append(asyncio.current_task())
            await super().close()

    class Engine(AsyncEngine):
        _connection_cls = Connection

    engine = Engine(create_async_engine(f"sqlite+aiosqlite:///{path}").sync_engine)
    await create_items(engine)
    async with engine.connect() as connection:
        assert type(connection) is Connection
        await connection.execute(UPDATE_FIRST)
    assert len(closed_in) == len(started) == 2  # the first is that of create_items()
    assert asyncio.current_task() not in closed_in
    await engine.dispose()


def test_names_that_are_something_else_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples are the application's own ``greenlet_spawn``, or a tracer's."""

    async def traced(function: Any, *args: Any, **kw: Any) -> Any:
        return await greenlet_spawn(function, *args, **kw)

    class Traced(theirs.AsyncSession):
        async def count(self) -> Any:
            return await greenlet_spawn(self.sync_session.flush)

    monkeypatch.setattr(sys.modules[__name__], "greenlet_spawn", traced)
    assert "count" not in vars(reuse_greenlets(Traced))


# -- neighbours ------------------------------------------------------------------------------------


async def test_sqlmodel(engine: AsyncEngine) -> None:
    """``exec()`` reuses greenlets, and the class itself is unchanged."""
    sqlmodel = pytest.importorskip("sqlmodel")
    theirs_ = importlib.import_module("sqlmodel.ext.asyncio.session").AsyncSession
    before = dict(vars(theirs_))
    ran_in: set[type] = set()
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *_: ran_in.add(type(getcurrent()))
    )
    for maker in (reuse_greenlets(theirs_), async_sessionmaker(class_=theirs_)):
        async with maker(bind=engine) as session:
            assert isinstance(session, theirs_)
            assert (await session.exec(sqlmodel.select(Item.id).where(Item.id == 1))).one() == 1
            assert len((await session.exec(sqlmodel.select(Item))).all()) == 3
    assert ran_in == {Spawned}
    assert dict(vars(theirs_)) == before


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list[Book]] = relationship()


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey(Shelf.id))


async def test_awaitable_attributes(engine: AsyncEngine) -> None:
    """They load in the session of their object, whatever created it."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    maker = async_sessionmaker(engine)
    async with maker.begin() as session:
        session.add(Shelf(id=1, books=[Book(id=1), Book(id=2)]))
    async with maker() as session:
        shelf = await session.get_one(Shelf, 1)
        assert theirs.async_object_session(shelf) is session
        assert [book.id for book in await shelf.awaitable_attrs.books] == [1, 2]
