"""The application's authorizer and progress handler are in force through every door."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from tests.conftest import MakeEngine
from tests.doors.turns import outcome
from tests.helpers import UPDATE_FIRST, create_items, driver

OK, DENY = sqlite3.SQLITE_OK, sqlite3.SQLITE_DENY

# The actions that an application performs itself, without PRAGMAs.
ALLOWED = {
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_RECURSIVE,
}

COUNT = "SELECT count(*) FROM items a, items b"
LONG = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) "
    "SELECT max(i) FROM n"
)


def allow_list(action: int, *_: object) -> int:
    return OK if action in ALLOWED else DENY


def allow_list_of_on_connect(action: int, first: str | None, *_: object) -> int:
    """Also allow SQLAlchemy's own query for the isolation level of an engine's new connection."""
    return OK if first == "read_uncommitted" else allow_list(action)


def set_by_listener(engine: AsyncEngine, set_it: Callable[[Any], Any]) -> None:
    """Call ``set_it`` with the raw connection in a ``connect`` listener."""

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        connection.run_async(set_it)


DOORS = {"swap-in": SQLitePool, "role": SQLitePool, "writer": WriterPool, "reader": ReaderPool}


@pytest.fixture(params=DOORS)
async def door(
    request: pytest.FixtureRequest, make_engine: MakeEngine
) -> Callable[..., AsyncEngine]:
    await create_items(make_engine(WriterPool))

    def make(**options: Any) -> AsyncEngine:
        engine = make_engine(DOORS[request.param], pool_size=1, **options)
        if request.param == "role":
            return engine.execution_options(sqlite_role="reader")
        return engine

    return make


def may_write(engine: AsyncEngine) -> bool:
    reads = engine.sync_engine.get_execution_options().get("sqlite_role") == "reader"
    return not reads and not isinstance(engine.pool, ReaderPool)


def ask_for_data_version(_connection: Any, raw: SQLiteConnection) -> int:
    return raw.data_version()


async def test_what_the_application_allows_goes_on(door: Callable[..., AsyncEngine]) -> None:
    """An authorizer that allows no PRAGMA does not block the package's own statements."""
    engine = door()
    set_by_listener(engine, lambda raw: raw.set_authorizer(allow_list))
    for _ in range(4):
        async with engine.connect() as connection:
            assert await outcome(connection, "SELECT max(id) FROM items") == [(3,)]
            if may_write(engine):
                assert await outcome(connection, "INSERT INTO items (amount) VALUES (9)") is None
                assert await outcome(connection, str(UPDATE_FIRST)) is None
            await connection.run_sync(ask_for_data_version, await driver(connection))
            await connection.rollback()


async def test_what_the_application_forbids_stays_forbidden(
    door: Callable[..., AsyncEngine],
) -> None:
    """Denials also hold after reinstallation, and for statements compiled before."""
    engine = door()
    set_by_listener(engine, lambda raw: raw.set_authorizer(allow_list))
    for _ in range(4):
        async with engine.connect() as connection:
            for sql in ("DELETE FROM items", "PRAGMA user_version", "CREATE TEMP TABLE t (i)"):
                with pytest.raises(DatabaseError, match=r"not authorized|cannot change"):
                    await connection.execute(text(sql))
                await connection.rollback()
            assert await outcome(connection, "SELECT count(*) FROM items") == [(3,)]


async def test_an_authorizer_of_on_connect(door: Callable[..., AsyncEngine]) -> None:
    """There the authorizer is set in the connection's own thread."""
    engine = door(on_connect=lambda connection: connection.set_authorizer(allow_list_of_on_connect))
    async with engine.connect() as connection:
        assert await outcome(connection, "SELECT count(*) FROM items") == [(3,)]
        with pytest.raises(DatabaseError, match="not authorized"):
            await connection.execute(text("CREATE TEMP TABLE t (i)"))


async def test_set_while_the_connection_is_lent(swap_in: AsyncEngine) -> None:
    """It applies to compiled statements, too, and lets no write through without the turn."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        for _ in range(3):
            await connection.execute(text(COUNT))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.set_authorizer(lambda action, *_: DENY if action == sqlite3.SQLITE_SELECT else OK)
        with pytest.raises(DatabaseError, match="not authorized"):
            await connection.execute(text(COUNT))
        await connection.execute(UPDATE_FIRST)
        assert (await driver(connection)).executor.transaction.writing.begun
        await raw.set_authorizer(None)
        assert await outcome(connection, COUNT) == [(9,)]
        await connection.rollback()


async def test_with_attached_files(make_engine: MakeEngine, tmp_path: Path) -> None:
    """The package's own queries about attached files do not reach the application's authorizer."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text(f"ATTACH '{tmp_path}/other.db' AS other"))
        await connection.execute(text("CREATE TABLE other.notes (id)"))
        await connection.commit()
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.set_authorizer(allow_list)
        await connection.execute(text("INSERT INTO other.notes VALUES (1)"))
        await connection.execute(UPDATE_FIRST)
        await connection.commit()


async def test_in_functions_of_the_facade(path: Path) -> None:
    """run_read() and run_write() consult the authorizer, too, and are not blocked by it."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
    async with SQLiteDatabase(
        path, on_connect=lambda connection: connection.set_authorizer(allow_list_of_on_connect)
    ) as db:
        for _ in range(2):
            assert await db.run_read_core(lambda c: c.scalar(text(COUNT))) == 9
            await db.run_write_core(lambda c: c.execute(UPDATE_FIRST).rowcount)
            with pytest.raises(DatabaseError, match="not authorized"):
                await db.run_write_core(lambda c: c.execute(text("DELETE FROM items")).rowcount)


class Progress:
    """A progress handler of the application that counts its calls, and interrupts on request."""

    def __init__(self) -> None:
        self.calls, self.stops = 0, False

    def on_connect(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self, 50)

    def __call__(self) -> bool:
        self.calls += 1
        return self.stops

    async def is_called(self, connection: AsyncConnection, sql: str = LONG) -> bool:
        before = self.calls
        assert await outcome(connection, sql) is not None
        return self.calls > before


async def test_a_progress_handler_is_called(door: Callable[..., AsyncEngine]) -> None:
    """It is called on every connection, every time; no statement runs on the loop."""
    progress = Progress()
    engine = door(on_connect=progress.on_connect)
    for _ in range(6):
        async with engine.connect() as connection:
            assert await progress.is_called(connection)
            raw = await driver(connection)
            hops = raw.worker.hops
            assert await progress.is_called(connection)
            assert raw.worker.hops > hops


async def test_a_progress_handler_stops_a_statement(door: Callable[..., AsyncEngine]) -> None:
    """The error is that of stock, and the connection continues to work."""
    progress = Progress()
    engine = door(on_connect=progress.on_connect)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        progress.stops = True
        with pytest.raises(OperationalError, match="interrupted"):
            await connection.execute(text(LONG))
        progress.stops = False
        await connection.rollback()
        assert await progress.is_called(connection)


@pytest.mark.parametrize("n", [50, 10_000_000])
async def test_a_progress_handler_survives_functions(path: Path, n: int) -> None:
    """run_read() and run_write() watch statements with their own handler, beside this one."""
    progress = Progress()

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(progress, n)

    async with SQLiteDatabase(path, on_connect=on_connect, readers=1) as db:
        await create_items(db.writer_engine)
        for run in (db.run_read_core, db.run_write_core):
            before = progress.calls
            await run(lambda c: c.scalar(text(LONG)))
            assert progress.calls > before
            if n == 50:
                progress.stops = True
                with pytest.raises(OperationalError, match="interrupted"):
                    await run(lambda c: c.scalar(text(LONG)))
                progress.stops = False
        if n == 50:
            for session in (db.read(), db.write()):
                async with session as opened:
                    assert await progress.is_called(await opened.connection())


async def test_without_a_handler_functions_leave_none(path: Path) -> None:
    """A closure's watch neither watches what comes after it nor stays in memory."""
    async with SQLiteDatabase(path, readers=1) as db:
        await create_items(db.writer_engine)
        for _ in range(3):
            await db.run_write_core(lambda c: c.execute(UPDATE_FIRST).rowcount)
            await db.run_read_core(lambda c: c.scalar(text(COUNT)))
        for engine in (db.writer_engine, db.reader_engine):
            async with engine.connect() as connection:
                sqlite: Any = (await driver(connection)).worker.connection
                assert sqlite.own_progress_handler == (None, 0)
                assert sqlite._watching[0] is None


async def test_reads_still_run_on_the_loop_after_functions(path: Path) -> None:
    """A handler of the package is not mistaken for one of the application."""
    async with SQLiteDatabase(path, readers=1) as db:
        await create_items(db.writer_engine)
        await db.run_read_core(lambda c: c.scalar(text(COUNT)))
        for _ in range(4):
            async with db.read() as session:
                raw = await driver(await session.connection())
                hops = raw.worker.hops
                await session.execute(text(COUNT))
        assert raw.worker.hops == hops
