"""Connections that SQLite has opened read-only although they should write."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.sqlite.driver_errors import is_read_only
from tests.conftest import MakeEngine
from tests.helpers import ENDLESS, UPDATE_FIRST, amounts, create_items, driver, until

READ_ONLY = "attempt to write a readonly database"
DOORS = {"swap-in": SQLitePool, "writer": WriterPool}


class Openings:
    """Counts the connections that an engine opens; the first of them cannot write.

    This happens if no descriptor is free: SQLite then opens the file read-only.
    """

    def __init__(self, engine: AsyncEngine, read_only: int = 1) -> None:
        self.count = 0
        self._read_only = read_only
        event.listen(engine.sync_engine, "do_connect", self._open)

    def _open(self, _dialect: Any, _record: Any, args: list[Any], _parameters: Any) -> None:
        self.count += 1
        if self.count <= self._read_only:
            args[0] += "?mode=ro"


async def refused(write: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises((exc.OperationalError, sqlite3.OperationalError), match=READ_ONLY):
        await write()


def write_by(engine: AsyncEngine) -> Callable[[], Awaitable[object]]:
    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    return write


@pytest.mark.parametrize("door", DOORS)
async def test_it_is_not_lent_again(make_engine: MakeEngine, door: str) -> None:
    """The first write fails with SQLite's own error, and the next checkout opens another."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(DOORS[door])
    opened = Openings(engine)
    await refused(write_by(engine))
    for _ in range(3):
        await write_by(engine)()
    assert opened.count == 2
    assert await amounts(engine) == [3, 0, 0]


@pytest.mark.parametrize("by", ["session", "function"])
async def test_the_facade(path: Path, make_engine: MakeEngine, by: str) -> None:
    """Closures are included."""
    await create_items(make_engine(WriterPool))
    db = SQLiteDatabase(path)
    opened = Openings(db.writer_engine)

    async def session() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)

    async def function() -> None:
        await db.run_write(lambda session: session.execute(UPDATE_FIRST).close())

    write = session if by == "session" else function
    async with db:
        await refused(write)
        for _ in range(3):
            await write()
        assert opened.count == 2
        assert await amounts(db.reader_engine) == [3, 0, 0]


async def test_within_its_transaction_it_stays(make_engine: MakeEngine) -> None:
    """Its task can continue to read; the connection is examined on return."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    opened = Openings(engine)
    async with engine.connect() as connection:
        for _ in range(2):
            with pytest.raises(exc.OperationalError, match=READ_ONLY):
                await connection.execute(UPDATE_FIRST)
            await connection.rollback()
            assert await connection.scalar(text("SELECT count(*) FROM items")) == 3
        assert opened.count == 1
    await write_by(engine)()
    assert opened.count == 2


async def test_several_of_them(make_engine: MakeEngine) -> None:
    """Each is discovered separately."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(SQLitePool, pool_size=2, max_overflow=0)
    opened = Openings(engine, read_only=2)
    async with engine.connect(), engine.connect():
        pass
    await refused(write_by(engine))
    await write_by(engine)()
    async with engine.connect() as first, engine.connect() as second:
        await first.execute(UPDATE_FIRST)
        await first.commit()
        await second.execute(UPDATE_FIRST)
        await second.commit()
    assert opened.count == 4


async def test_it_is_not_kept_after_a_cancellation(make_engine: MakeEngine) -> None:
    """The connection is not kept, even if SQLAlchemy discards it."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(WriterPool)
    opened = Openings(engine)

    async def write_and_wait() -> None:
        async with engine.connect() as connection:
            with pytest.raises(exc.OperationalError, match=READ_ONLY):
                await connection.execute(UPDATE_FIRST)
            await connection.rollback()
            await connection.execute(ENDLESS)

    task = asyncio.ensure_future(write_and_wait())
    pool = engine.pool
    assert isinstance(pool, FairPool)
    await until(
        lambda: any("RECURSIVE" in (checkout.permit.last_sql or "") for checkout in pool.checkouts)
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await write_by(engine)()
    assert opened.count == 2


async def test_those_at_rest_go_with_it(path: Path, make_engine: MakeEngine) -> None:
    """SQLite opens the log's index once for all of a process's connections to a file."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
        readers = db.reader_engine.pool
        assert isinstance(readers, FairPool)
        [at_rest] = [record.dbapi_connection for record in readers._pool._records]
        other = make_engine(SQLitePool, url=f"sqlite+aiosqlite:///{path}-other")
        await create_items(other)
        async with other.connect() as connection:
            elsewhere = await driver(connection)
        async with db.writer_engine.connect() as connection:
            (await driver(connection)).worker.suspect = True
        assert at_rest is not None
        assert at_rest.worker.closed
        assert not elsewhere.worker.closed
        assert await amounts(db.reader_engine) == [0, 0, 0]


async def test_nothing_is_asked_without_a_greenlet(make_engine: MakeEngine) -> None:
    """Closing a raw connection in a plain function raises nothing, and it is not lent again."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    raw = await engine.raw_connection()
    suspect = raw.dbapi_connection
    assert isinstance(suspect, SQLiteConnection)
    suspect.worker.suspect = True
    raw.close()
    async with engine.connect() as connection:
        assert await driver(connection) is not suspect
    await write_by(engine)()


# -- harmless cases ------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_a_file_that_is_read_only(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """The plain error is raised each time; another connection could not write the file, either."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(DOORS[door])
    opened = Openings(engine, read_only=9)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    access = os.access

    def nothing_is_writable(path: str, mode: int) -> bool:
        return not mode & os.W_OK and access(path, mode)

    monkeypatch.setattr(os, "access", nothing_is_writable)
    for _ in range(3):
        await refused(write_by(engine))
    assert opened.count == 1


@pytest.mark.parametrize("door", DOORS)
async def test_query_only(make_engine: MakeEngine, door: str) -> None:
    """The application has set it on the connection, which is therefore kept."""
    engine = make_engine(DOORS[door])
    await create_items(engine)
    opened = Openings(engine, read_only=0)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA query_only = 1")
    for _ in range(2):
        await refused(write_by(engine))
    assert opened.count == 0
    async with engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA query_only = 0")
    await write_by(engine)()
    assert opened.count == 0


async def test_readers_may_not_write(make_engine: MakeEngine) -> None:
    """Readers raise a different error, and their connections are kept."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(ReaderPool, pool_size=1)
    opened = Openings(engine, read_only=0)
    for _ in range(3):
        async with engine.connect() as connection:
            with pytest.raises(exc.OperationalError, match=r"a reader of app\.db cannot change"):
                await connection.execute(UPDATE_FIRST)
            (await driver(connection)).worker.suspect = True
    assert opened.count == 1


@pytest.mark.parametrize("door", DOORS)
async def test_other_errors(make_engine: MakeEngine, door: str) -> None:
    """Other errors change nothing, and cost no hop."""
    engine = make_engine(DOORS[door])
    await create_items(engine)
    opened = Openings(engine, read_only=0)
    for sql in ("INSERT INTO items (id) VALUES (1)", "SELECT nothing"):
        async with engine.connect() as connection:
            with pytest.raises(exc.DBAPIError):
                await connection.execute(text(sql))
            assert not (await driver(connection)).worker.suspect
    assert opened.count == 0


def test_where_python_does_not_tell_the_code(path: Path) -> None:
    """Python 3.10 has only the message; extended codes share it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA query_only = 1")
        with pytest.raises(sqlite3.OperationalError) as raised:
            connection.execute("CREATE TABLE t (a)")
    assert is_read_only(raised.value)
    assert is_read_only(sqlite3.OperationalError(READ_ONLY))
    extended = sqlite3.OperationalError("disk I/O error")
    extended.sqlite_errorcode = 1032  # type: ignore[attr-defined] # DBMOVED
    assert is_read_only(extended)
    for other in (sqlite3.OperationalError("database is locked"), ValueError(READ_ONLY)):
        assert not is_read_only(other)
