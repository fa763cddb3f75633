"""Database access where nothing can be awaited: an expired attribute, a lazy load, a plain call.

Every program encounters it once. It is an error, and nothing must have run.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, ForeignKey, select, text
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from sa_sqlite_pool import restore

from .conftest import LENIENT
from .doors import ENGINES, FACADE, STOCK, SWAP_IN, Application, Door, _session, is_locked

OURS = [{}, {"placement": "thread"}]


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship()


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))


# Stock wraps it if the driver's cursor cannot be opened (SQLAlchemy 2.1).
ERRORS = (MissingGreenlet, StatementError)


@pytest.fixture(params=OURS, ids=["", "thread"])
async def app(request: pytest.FixtureRequest, door: Door) -> AsyncIterator[Application]:
    own = None if door.kind == STOCK else request.param
    app = await door.open(own=own)
    async with app.writer.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with app.transaction() as session:
        session.add(Author(id=1, name="Ada", books=[Book(id=1)]))
    yield app
    gc.collect()  # of a stock engine, the driver's coroutine that was never awaited


@pytest.fixture(params=[pytest.param(STOCK, marks=LENIENT), SWAP_IN, ENGINES, FACADE])
def door_without_loop(request: pytest.FixtureRequest, path: Path) -> Iterator[Door]:
    yield Door(request.param, path, _session)
    gc.collect()


def name(author: Author) -> str:
    return author.name


def books(author: Author) -> list[Book]:
    return author.books


@pytest.mark.parametrize("attribute", [name, books])
async def test_what_is_not_loaded(app: Application, attribute: Callable[[Author], Any]) -> None:
    """The session reads and writes afterwards, without obstacles."""
    async with app.session(expire_on_commit=True) as session:
        author = (await session.scalars(select(Author))).one()
        await session.commit()
        with pytest.raises(ERRORS):
            attribute(author)
        for _ in range(2):
            await session.refresh(author)
        assert author.name == "Ada"
        assert not is_locked(app.path)
        author.name = "Grace"
        await session.commit()
    assert await app.value("SELECT name FROM author") == "Grace"


async def test_what_was_refused_is_not_written(app: Application) -> None:
    """It is written neither by itself nor with the next commit."""
    async with app.session() as session:
        await session.execute(text("UPDATE author SET name = 'Grace'"))
        with pytest.raises(ERRORS):
            session.sync_session.execute(text("INSERT INTO book VALUES (2, 1)"))
        await session.commit()
    assert await app.rows("SELECT id FROM book") == [(1,)]
    assert await app.value("SELECT name FROM author") == "Grace"
    assert not is_locked(app.path)


@pytest.mark.parametrize("own", OURS, ids=["", "thread"])
def test_where_no_loop_runs(door_without_loop: Door, own: dict[str, Any]) -> None:
    """Tables created during an import: SQLAlchemy's error is raised; the engines stay usable."""
    app = door_without_loop.make(own=None if door_without_loop.stock else own)
    for engine in app.engines:
        with pytest.raises(ERRORS):
            Base.metadata.create_all(engine.sync_engine)
        with pytest.raises(ERRORS), Session(engine.sync_engine) as session:
            session.execute(text("SELECT 1"))
    asyncio.run(_works(app))


@pytest.mark.parametrize("own", OURS, ids=["", "thread"])
def test_where_another_library_runs_the_coroutine(
    door_without_loop: Door, own: dict[str, Any]
) -> None:
    """Under Trio, for example, an error is raised at once, and states what is needed."""
    if door_without_loop.stock:
        pytest.skip("it depends on Python whether the driver makes a loop of its own")
    app = door_without_loop.make(own=own)
    for engine in app.engines:
        with pytest.raises(RuntimeError, match="run the program with asyncio"):
            engine.connect().start().send(None)
    asyncio.run(_works(app))


def test_a_restore_where_another_library_runs_the_coroutine(tmp_path: Path) -> None:
    """It has no engine that would report it."""
    with pytest.raises(RuntimeError, match="run the program with asyncio"):
        restore(tmp_path / "copy.db", tmp_path / "app.db").send(None)


async def _works(app: Application) -> None:
    await app.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    assert await app.value("SELECT count(*) FROM t") == 1
    await app.close()


async def test_in_a_thread_without_a_loop(app: Application) -> None:
    """A session of the loop used in a thread, and an engine there: both stay usable here."""
    if app.kind == STOCK:
        pytest.skip("the same error, and coroutines that outlive the test")
    async with app.session() as session:
        await session.execute(text("SELECT 1"))
        await asyncio.to_thread(_is_refused, session.sync_session)
        assert await session.scalar(text("SELECT 2")) == 2
    for engine in app.engines:
        await asyncio.to_thread(_connects_to, engine)
    assert await app.value("SELECT name FROM author") == "Ada"


def _is_refused(executes: Session | Connection) -> None:
    with pytest.raises(ERRORS):
        executes.execute(text("SELECT 1"))


def _connects_to(engine: AsyncEngine) -> None:
    with pytest.raises(ERRORS), engine.sync_engine.connect() as connection:
        connection.execute(text("SELECT 1"))
