"""Sessions over several databases: the rows arrive where they were sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_sqlite_pool import routing_sessionmaker

from .doors import ENGINES, FACADE, STOCK, Application, Door, outside


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)


class Log(Base):
    __tablename__ = "log"
    id: Mapped[int] = mapped_column(primary_key=True)


class Two:
    """An application with a separate database for the log; each has all tables."""

    def __init__(self, app: Application, logs: Application) -> None:
        self.app, self.logs = app, logs

    @property
    def log_engine(self) -> AsyncEngine:
        return self.logs.writer

    def maker(self, **options: Any) -> async_sessionmaker[AsyncSession]:
        app = self.app
        if app.kind in {ENGINES, FACADE}:
            return routing_sessionmaker(writer=app.writer, reader=app.reader, **options)
        return async_sessionmaker(app.writer, expire_on_commit=False, **options)

    def count(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Count the rows of item and log, in the main database and in the other."""
        return _count(self.app.path), _count(self.logs.path)


def _count(path: Path) -> tuple[int, int]:
    with outside(path) as connection:
        sql = "SELECT (SELECT count(*) FROM item), (SELECT count(*) FROM log)"
        items, logs = connection.execute(sql).fetchone()
        return items, logs


@pytest.fixture
async def two(door: Door) -> Two:
    """Return both databases, with all tables in both."""
    app, logs = await door.open(), await door.open(path=door.path.with_name("log.db"))
    for engine in (app.writer, logs.writer):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    return Two(app, logs)


async def test_binds_by_class(two: Two) -> None:
    """Each class is written to its database."""
    async with two.maker(binds={Log: two.log_engine})() as session, session.begin():
        session.add(Item())
        session.add(Log())
    assert two.count() == ((1, 0), (0, 1))


async def test_binds_by_table_and_base(two: Two) -> None:
    """Binds by table and by the common base class work, too."""
    binds = {Log.__table__: two.log_engine}
    async with two.maker(binds=binds)() as session, session.begin():
        await session.execute(insert(Log).values(id=1))
        await session.execute(insert(Item).values(id=1))
    assert two.count() == ((1, 0), (0, 1))
    async with two.maker(binds={Base: two.log_engine})() as session, session.begin():
        session.add(Item())
    assert two.count() == ((1, 0), (1, 1))


async def test_binds_are_read_from(two: Two) -> None:
    """Reads go to the bound database, before and after a write."""
    await two.logs.write("INSERT INTO log VALUES (7)")
    async with two.maker(binds={Log: two.log_engine})() as session, session.begin():
        assert (await session.scalars(select(Log.id))).all() == [7]
        session.add(Item())
        await session.flush()
        assert (await session.scalars(select(Log.id))).all() == [7]
        assert (await session.scalars(select(Item.id))).all() == [1]
        assert await session.get(Log, 7) is not None


async def test_binds_given_to_one_session(two: Two) -> None:
    """Session(binds=…) works like the maker's option."""
    async with two.maker()(binds={Log: two.log_engine}) as session, session.begin():
        session.add(Item())
        session.add(Log())
    assert two.count() == ((1, 0), (0, 1))


async def test_bind_mapper_and_bind_table(two: Two) -> None:
    """The synchronous session's own methods work."""
    async with two.maker()() as session, session.begin():
        session.sync_session.bind_mapper(Log, two.log_engine.sync_engine)
        session.add(Item())
        session.add(Log())
    assert two.count() == ((1, 0), (0, 1))
    async with two.maker()() as session, session.begin():
        session.sync_session.bind_table(Log.__table__, two.log_engine.sync_engine)  # type: ignore[arg-type]
        await session.execute(insert(Log))
    assert two.count() == ((1, 0), (0, 2))


async def test_a_session_on_a_connection(two: Two) -> None:
    """Test suites bind a session to a connection and roll back: no row is written elsewhere."""
    async with two.log_engine.connect() as connection:
        outer = await connection.begin()
        options: dict[str, Any] = {"join_transaction_mode": "create_savepoint"}
        async with two.maker()(bind=connection, **options) as session:
            session.add(Item())
            await session.commit()
            assert len((await session.scalars(select(Item))).all()) == 1
        await outer.rollback()
    # On stock, sqlite3 sends no BEGIN before SAVEPOINT, so its RELEASE commits.
    assert two.count() == ((0, 0), (1, 0) if two.app.kind == STOCK else (0, 0))


async def test_a_session_on_another_engine(two: Two) -> None:
    """Session(bind=engine) reads and writes there."""
    async with two.maker()(bind=two.log_engine) as session, session.begin():
        session.add(Item())
        await session.flush()
        assert len((await session.scalars(select(Item))).all()) == 1
    assert two.count() == ((0, 0), (1, 0))


async def test_bind_arguments_of_one_statement(two: Two) -> None:
    """execute(…, bind_arguments={"bind": engine}) is executed there."""
    to_logs = {"bind": two.log_engine.sync_engine}
    async with two.maker()() as session, session.begin():
        await session.execute(text("INSERT INTO log VALUES (5)"), bind_arguments=to_logs)
        asked = text("SELECT id FROM log")
        assert (await session.scalars(asked, bind_arguments=to_logs)).all() == [5]
        assert (await session.scalars(asked)).all() == []
    assert two.count() == ((0, 0), (0, 1))


async def test_rollback_undoes_both(two: Two) -> None:
    """Rolling back a transaction over two databases leaves nothing in either."""
    async with two.maker(binds={Log: two.log_engine})() as session:
        session.add(Item())
        session.add(Log())
        await session.flush()
        await session.rollback()
    assert two.count() == ((0, 0), (0, 0))


async def test_the_roles_are_honoured_beside_binds(two: Two) -> None:
    """role="writer" applies to everything that is not bound elsewhere."""
    if two.app.kind not in {ENGINES, FACADE}:
        return
    maker = two.maker(binds={Log: two.log_engine})
    async with maker(role="writer") as session, session.begin():
        session.add(Item())
        session.add(Log())
    assert two.count() == ((1, 0), (0, 1))
