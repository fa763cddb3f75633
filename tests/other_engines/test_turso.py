"""Turso's SQLite through ``sqlite+aioturso``: routed sessions work, the other doors refuse it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, SQLitePool, routing_sessionmaker

dialect = pytest.importorskip("turso.sqlalchemy.dialect", reason="pyturso is not installed")

Sessionmaker = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int] = mapped_column(default=0)


@pytest.fixture(autouse=True)
def has_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add an attribute that SQLAlchemy needs for aiosqlite after 2.0.45, and pyturso lacks."""
    monkeypatch.setattr(dialect.AsyncAdapt_turso_dbapi, "has_stop", False, raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aioturso:///{tmp_path / 'app.db'}"


@pytest.fixture
async def routed(url: str) -> AsyncIterator[tuple[Sessionmaker, list[str]]]:
    """Provide a session maker over a writer and readers, and its statements' destinations."""
    writer = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)
    reader = create_async_engine(url)
    async with writer.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    went_to = list[str]()
    for name, engine in (("writer", writer), ("reader", reader)):
        event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *_, name=name: went_to.append(name)
        )
    yield routing_sessionmaker(writer=writer, reader=reader), went_to
    await writer.dispose()
    await reader.dispose()


async def test_sessions_are_routed(routed: tuple[Sessionmaker, list[str]]) -> None:
    """Reads use the reader until the first write, and the next session reads the written data."""
    make_session, went_to = routed
    async with make_session.begin() as session:
        assert await session.scalar(select(func.count(Item.id))) == 0
        session.add(Item(id=1))
        await session.flush()
        await session.execute(update(Item).values(amount=Item.amount + 1))
        assert await session.scalar(select(Item.amount)) == 1
    async with make_session() as session:
        assert await session.scalar(select(Item.amount)) == 1
    assert went_to == ["reader", "writer", "writer", "writer", "reader"]


async def test_no_update_is_lost(routed: tuple[Sessionmaker, list[str]]) -> None:
    """With a single writing connection, role="writer" acts as a turn."""
    make_session, _ = routed
    async with make_session.begin() as session:
        session.add(Item(id=1))

    async def add_one() -> None:
        async with make_session(role="writer") as session, session.begin():
            (await session.get_one(Item, 1)).amount += 1

    await asyncio.gather(*(add_one() for _ in range(50)))
    async with make_session() as session:
        assert await session.scalar(select(Item.amount)) == 50


async def test_the_other_doors_refuse(url: str) -> None:
    """They require aiosqlite's own connections, and say so."""
    with pytest.raises(ConfigurationError, match="needs a sqlite\\+aiosqlite URL"):
        SQLiteDatabase(url)
    with pytest.raises(ConfigurationError, match="works only with sqlite\\+aiosqlite"):
        create_async_engine(url, poolclass=SQLitePool)
