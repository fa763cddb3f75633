"""The types of the public names, as seen by a type checker: mypy runs over this file.

It does so with SQLAlchemy 2.1 and, by `make types-sqlalchemy20`, with 2.0. These write rows
differently: ``Row[int, str]`` and ``Row[tuple[int, str]]``. ``_tuple()`` is the same in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import pytest
from sqlalchemy import Connection, RowMapping, String, bindparam, column, func, select, table, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import IdentitySet

import sa_sqlite_pool
from sa_sqlite_pool import (
    PreparedRead,
    ServerDatabase,
    SQLiteDatabase,
    migrations,
    restore,
    routing_sessionmaker,
)

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import assert_type

    async def facade(db: SQLiteDatabase) -> None:
        assert_type(db.writer_engine, AsyncEngine)
        assert_type(db.sessionmaker, async_sessionmaker[AsyncSession])
        async with db.write() as session:
            assert_type(session, AsyncSession)
        assert_type(await db.backup("copy.db", progress=print), None)
        assert_type(await restore("copy.db", "app.db"), None)
        async with db as opened:
            assert_type(opened, SQLiteDatabase)

    def total(session: Session, key: int, *, factor: float = 1.0) -> float:
        return factor * (session.scalar(text("SELECT 1")) or key)

    def rows(connection: Connection) -> list[str]:
        return [row.name for row in connection.execute(text("SELECT 1 AS name"))]

    async def closures(db: SQLiteDatabase) -> None:
        assert_type(await db.run_read(total, 1, factor=2.0), float)
        assert_type(await db.run_write(total, 1), float)
        assert_type(await db.run_read_core(rows), list[str])
        assert_type(await db.run_write_core(rows), list[str])
        assert_type(await db.run_write(lambda session: session.new), IdentitySet)
        assert_type(
            await asyncio.gather(db.run_read(total, 1), db.run_write_core(rows)),
            tuple[float, list[str]],
        )
        started: Coroutine[None, None, float] = db.run_read(total, 1)
        assert_type(await asyncio.create_task(started), float)
        db.run_read(total, 1)  # type: ignore[unused-coroutine]
        await db.run_read(total, "1")  # type: ignore[arg-type]
        await db.run_read(total)  # type: ignore[call-arg]
        await db.run_read(rows)  # type: ignore[arg-type]

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        note: Mapped[str | None]

    async def prepared(db: SQLiteDatabase) -> None:
        read = db.prepare(select(Item.id, Item.name).where(Item.id == bindparam("id")))
        assert_type((await read.one(id=1))._tuple(), tuple[int, str])
        for row in await read.all(id=1):
            assert_type(row._tuple(), tuple[int, str])
            _number, _name = row
            assert_type(row.name, Any)
        if (found := await read.first(id=1)) is not None:
            assert_type(found._tuple(), tuple[int, str])
        if (found := await read.one_or_none(id=1)) is not None:
            assert_type(found._tuple(), tuple[int, str])
        for mapping in await read.mappings(id=1):
            assert_type(mapping, RowMapping)
        assert_type(await read.scalar(id=1), int | None)
        assert_type(await read.scalar_one(id=1), int)
        assert_type(await read.scalar_one_or_none(id=1), int | None)
        assert_type(await read.scalars(id=1), Sequence[int])
        assert_type(await db.prepare(select(Item.note)).scalar_one(), str | None)
        assert_type(await db.prepare(select(func.count(Item.id))).scalar_one(), int)
        both = db.prepare(select(Item.name).union_all(select(Item.note)))
        assert_type(await both.scalars(), Sequence[str])
        _any_read: PreparedRead = read
        db.prepare("SELECT 1")  # type: ignore[call-overload]

    async def prepared_without_types(db: SQLiteDatabase) -> None:
        """Rows of columns without types can be unpacked, however many they are."""
        for read in (
            db.prepare(text("SELECT 1 AS one, 2 AS two")),
            db.prepare(text("SELECT 1 AS one, 2 AS two").columns(column("one"), column("two"))),
            db.prepare(select(table("items", column("one", String), column("two", String)))),
        ):
            _one, _two = await read.one()
            assert_type((await read.one()).one, Any)
            assert_type(await read.scalar_one(), Any)

    async def migrated(db: SQLiteDatabase, engine: AsyncEngine) -> None:
        assert_type(await migrations.current(db, config="alembic.ini"), tuple[str, ...])
        await migrations.upgrade(engine, "head", config=Path("alembic.ini"), timeout=1)

    class Own(AsyncSession):
        async def own(self) -> int:
            return 1

    class OwnDatabase(SQLiteDatabase[Own]):
        def __init__(self) -> None:
            super().__init__("app.db", session_class=Own)

        async def run_write(
            self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
        ) -> T:
            return await super().run_write(fn, *args, **kwargs)

    async def own_sessions(any_database: Callable[[SQLiteDatabase], None]) -> None:
        db = SQLiteDatabase("app.db", session_class=Own)
        assert_type(db, SQLiteDatabase[Own])
        assert_type(db.sessionmaker, async_sessionmaker[Own])
        server = ServerDatabase("postgresql://app@db/app", session_class=Own)
        async with db.write() as session, db.read(long=True) as reading, server.read() as there:
            assert_type(await session.own() + await reading.own() + await there.own(), int)
        async with db as opened, OwnDatabase() as own:
            assert_type(opened, SQLiteDatabase[Own])
            assert_type(own, OwnDatabase)
        assert_type(await OwnDatabase().open(), OwnDatabase)
        any_database(db)
        any_database(own)
        any_database(SQLiteDatabase("app.db", readers=2))
        SQLiteDatabase("app.db", session_class=Session)  # type: ignore[type-var]

    async def drop_in() -> None:
        engine = sa_sqlite_pool.create_async_engine("sqlite+aiosqlite:///app.db", pool_size=2)
        assert_type(engine, sa_sqlite_pool.AsyncEngine)
        assert_type(
            sa_sqlite_pool.async_engine_from_config({}, prefix="db."), sa_sqlite_pool.AsyncEngine
        )
        theirs: AsyncEngine = engine
        async with engine.begin() as connection, engine.connect() as other:
            assert_type(connection, AsyncConnection)
            assert_type(other, AsyncConnection)
        maker = sa_sqlite_pool.async_sessionmaker(engine, expire_on_commit=False)
        assert_type(maker, sa_sqlite_pool.async_sessionmaker[sa_sqlite_pool.AsyncSession])
        async with maker() as session, maker.begin() as begun:
            assert_type(session, sa_sqlite_pool.AsyncSession)
            assert_type(begun, sa_sqlite_pool.AsyncSession)
            assert_type(await session.connection(), AsyncConnection)
        own = sa_sqlite_pool.async_sessionmaker(theirs, class_=Own)
        assert_type(own, sa_sqlite_pool.async_sessionmaker[Own])
        stock: async_sessionmaker[Own] = own
        assert_type(stock(), Own)
        assert_type(sa_sqlite_pool.reuse_greenlets(Own), type[Own])
        scoped = sa_sqlite_pool.async_scoped_session(own, scopefunc=lambda: 1)
        assert_type(scoped(), Own)
        sa_sqlite_pool.reuse_greenlets(Session)  # type: ignore[type-var]

    @sa_sqlite_pool.create_async_engine("sqlite+aiosqlite:///app.db").begin()
    async def decorated(number: int) -> int:
        return number

    # Modules that are written with one of two names for the same, and with the facade.

    def their_maker(maker: async_sessionmaker[AsyncSession]) -> None: ...

    def our_maker(
        maker: sa_sqlite_pool.async_sessionmaker[sa_sqlite_pool.AsyncSession],
    ) -> None: ...

    def our_engine(engine: sa_sqlite_pool.AsyncEngine) -> None: ...

    def our_connection(connection: sa_sqlite_pool.AsyncConnection) -> None: ...

    def our_session(session: sa_sqlite_pool.AsyncSession) -> None: ...

    def their_scope(scoped: async_scoped_session[AsyncSession]) -> None: ...

    def blocks(
        block: Callable[[], AbstractAsyncContextManager[sa_sqlite_pool.AsyncSession]],
    ) -> None: ...

    async def each_other(db: SQLiteDatabase) -> None:
        engine = sa_sqlite_pool.create_async_engine("sqlite+aiosqlite:///app.db")
        for maker in (sa_sqlite_pool.async_sessionmaker(engine), db.sessionmaker):
            their_maker(maker)
            our_maker(maker)
            their_scope(sa_sqlite_pool.async_scoped_session(maker, scopefunc=lambda: 1))
            async with maker() as session, engine.connect() as connection, engine.begin() as begun:
                our_session(session)
                our_connection(await session.connection())
                our_connection(connection)
                our_connection(begun)
        our_engine(db.writer_engine)
        blocks(db.read)
        blocks(db.write)

    async def dependency(db: SQLiteDatabase) -> AsyncIterator[sa_sqlite_pool.AsyncSession]:
        async with db.write() as session:
            yield session

    def routed(engine: AsyncEngine) -> None:
        maker = routing_sessionmaker(writer=engine, reader=engine)
        assert_type(maker, async_sessionmaker[AsyncSession])
        own = routing_sessionmaker(writer=engine, reader=engine, class_=Own, autoflush=False)
        assert_type(own, async_sessionmaker[Own])
        SQLiteDatabase("app.db", session_class=Own)


def test_every_public_name_is_there() -> None:
    """``__all__`` is sorted by kind and complete."""
    assert all(hasattr(sa_sqlite_pool, name) for name in sa_sqlite_pool.__all__)
    assert {"SQLitePool", "WriterPool", "ReaderPool", "SQLiteDatabase", "routing_sessionmaker"} <= {
        *sa_sqlite_pool.__all__
    }


@pytest.mark.parametrize("facade", [SQLiteDatabase, ServerDatabase])
def test_the_session_class_as_a_parameter(facade: Any) -> None:
    """An annotation such as ``SQLiteDatabase[Own]`` may be evaluated, and is no other class."""
    annotated = facade[AsyncSession]
    assert annotated.__origin__ is facade
