"""The types of the public names, as seen by a type checker: mypy runs over this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.util import IdentitySet

import sa_sqlite_pool
from sa_sqlite_pool import (
    PreparedRead,
    SQLiteDatabase,
    migrations,
    restore,
    routing_sessionmaker,
)

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
        await db.run_read(total, "1")  # type: ignore[arg-type]
        await db.run_read(total)  # type: ignore[call-arg]
        await db.run_read(rows)  # type: ignore[arg-type]

    async def prepared(db: SQLiteDatabase) -> None:
        read = db.prepare(text("SELECT 1 AS one"))
        assert_type(read, PreparedRead)
        assert_type((await read.one()).one, Any)
        for row in await read.all():
            assert_type(row, Row[Any])
        for mapping in await read.mappings():
            assert_type(mapping, RowMapping)
        assert_type(await read.one_or_none(one=1), Row[Any] | None)
        db.prepare("SELECT 1")  # type: ignore[arg-type]

    async def migrated(db: SQLiteDatabase, engine: AsyncEngine) -> None:
        assert_type(await migrations.current(db, config="alembic.ini"), tuple[str, ...])
        await migrations.upgrade(engine, "head", config=Path("alembic.ini"), timeout=1)

    class Own(AsyncSession):
        pass

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
