"""SQLModel's asynchronous session, with exec(), through every door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sa_sqlite_pool import routing_sessionmaker

from .doors import ENGINES, FACADE, Application, Door

sqlmodel = pytest.importorskip("sqlmodel")
AsyncSession = pytest.importorskip("sqlmodel.ext.asyncio.session").AsyncSession


class Hero(sqlmodel.SQLModel, table=True):  # type: ignore[misc, name-defined, call-arg]
    id: int | None = sqlmodel.Field(default=None, primary_key=True)
    name: str


@asynccontextmanager
async def session_of(app: Application) -> AsyncIterator[Any]:
    if app.kind in {ENGINES, FACADE}:
        maker = routing_sessionmaker(writer=app.writer, reader=app.reader, class_=AsyncSession)
        async with maker() as session:
            yield session
    else:
        async with AsyncSession(app.writer, expire_on_commit=False) as session:
            yield session


async def opened(door: Door) -> Application:
    app = await door.open()
    async with app.writer.begin() as connection:
        await connection.run_sync(sqlmodel.SQLModel.metadata.create_all)
    return app


async def test_it_adds_and_executes(door: Door) -> None:
    """A row is added, found by exec(), and committed."""
    app = await opened(door)
    async with session_of(app) as session:
        assert isinstance(session, AsyncSession)
        session.add(Hero(name="a"))
        await session.flush()
        assert [hero.name for hero in await session.exec(sqlmodel.select(Hero))] == ["a"]
        await session.commit()
    assert await app.rows("SELECT name FROM hero") == [("a",)]


async def test_it_reads_and_then_writes(door: Door) -> None:
    """get() and exec() come first, then a change."""
    app = await opened(door)
    await app.write("INSERT INTO hero (name) VALUES ('a')")
    async with session_of(app) as session, session.begin():
        hero = (await session.exec(sqlmodel.select(Hero))).one()
        hero.name = "b"
        session.add(hero)
    assert await app.rows("SELECT name FROM hero") == [("b",)]


async def test_it_refreshes(door: Door) -> None:
    """Its tutorial uses add(), commit() and refresh()."""
    app = await opened(door)
    async with session_of(app) as session:
        hero = Hero(name="a")
        session.add(hero)
        await session.commit()
        await session.refresh(hero)
        assert hero.id == 1


@pytest.mark.parametrize("door", [FACADE], indirect=True)
async def test_the_facade_gives_it(door: Door) -> None:
    """db.read(), db.write() and db.sessionmaker return sessions of the application's class."""
    app = await door.open(own={"session_class": AsyncSession})
    async with app.writer.begin() as connection:
        await connection.run_sync(sqlmodel.SQLModel.metadata.create_all)
    async with app.db.write() as session:
        session.add(Hero(name="a"))
    for enter in (app.db.read, app.db.sessionmaker):
        async with enter() as session:
            assert isinstance(session, AsyncSession)
            found: Any = session
            assert [hero.name for hero in await found.exec(sqlmodel.select(Hero))] == ["a"]
