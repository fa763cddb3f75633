"""Any object that behaves like a ``sqlite3.Connection`` works: proxies, and other modules'."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    WriteTimeout,
    routing_sessionmaker,
)
from sa_sqlite_pool.sqlite.driver_errors import dbapi
from tests.conftest import MakeEngine
from tests.doors.other_drivers import MODULES, TracedConnection, creator_of
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, turn_of
from tests.waiting import pauses

IDS = text("SELECT id FROM items ORDER BY id")

# -- proxies --------------------------------------------------------------------------------------


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make ``sqlite3.connect`` return proxies, as ``opentelemetry-instrument`` does."""
    found: list[str] = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **kw: TracedConnection(connect(*args, **kw), found)
    )
    return found


@pytest.fixture
def opentelemetry() -> Iterator[None]:
    module = pytest.importorskip("opentelemetry.instrumentation.sqlite3")
    module.SQLite3Instrumentor().instrument()
    yield
    module.SQLite3Instrumentor().uninstrument()


@pytest.fixture
def wrapt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``sqlite3.connect`` return proxies as ddtrace, Elastic APM and New Relic do."""
    module = pytest.importorskip("wrapt")
    connect = sqlite3.connect
    for owner in (sqlite3, sqlite3.dbapi2):
        monkeypatch.setattr(
            owner, "connect", lambda *args, **kw: module.ObjectProxy(connect(*args, **kw))
        )


async def work(writer: AsyncEngine, reader: AsyncEngine) -> None:
    """Perform a bit of everything."""
    await create_items(writer, 10)
    for _ in range(4):  # the later ones may run on the loop
        assert len(await amounts(reader)) == 10
        async with writer.begin() as connection:
            await connection.execute(UPDATE_FIRST)
    async with reader.connect() as connection:
        assert len([row async for row in await connection.stream(IDS)]) == 10
    with pytest.raises(Exception, match="UNIQUE") as caught:
        async with writer.begin() as connection:
            await connection.execute(text("INSERT INTO items (id, amount) VALUES (1, 1)"))
    error = caught.value
    assert isinstance(error.orig if isinstance(error, DBAPIError) else error, dbapi.IntegrityError)
    async with routing_sessionmaker(writer=writer, reader=reader)() as session:
        session.add(Item(id=99))
        await session.commit()
    assert (await amounts(reader))[0] == 4


@pytest.mark.parametrize("door", ["traced", "opentelemetry", "wrapt"])
async def test_proxies(door: str, request: pytest.FixtureRequest, make_engine: MakeEngine) -> None:
    """Both kinds of door work, and are closed, if every connection is a proxy."""
    request.getfixturevalue(door)
    pool = make_engine(SQLitePool)
    await work(pool, pool)
    await pool.dispose()
    async with pool.begin() as connection:
        await connection.execute(text("DELETE FROM items"))
    two = make_engine(WriterPool), make_engine(ReaderPool)
    await work(*two)
    for engine in (*reversed(two), pool):
        await engine.dispose()


@pytest.mark.parametrize("door", ["traced", "opentelemetry", "wrapt"])
async def test_a_database_of_proxies(door: str, request: pytest.FixtureRequest, path: Path) -> None:
    """The facade works, too, with its closures, checkpoints and backups."""
    request.getfixturevalue(door)
    async with SQLiteDatabase(path) as database:
        await work(database.writer_engine, database.reader_engine)
        assert await database.run_read(lambda c: len(c.execute(IDS).all())) == 11
        await database.run_write(lambda c: c.execute(UPDATE_FIRST))
        await database.checkpoint()
        await database.backup(path.with_name("copy.db"))
    async with SQLiteDatabase(path.with_name("copy.db")) as copy:
        assert (await amounts(copy.reader_engine))[0] == 5


async def test_tracers_see_each_statement_of_the_application(
    traced: list[str], make_engine: MakeEngine
) -> None:
    """Statements pass through cursors, which tracers wrap: inline, in a thread, and streamed."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    traced.clear()
    async with engine.connect() as connection:
        for _ in range(5):
            await connection.execute(IDS)
        await connection.execute(
            text("INSERT INTO items (amount) VALUES (:a)"), [{"a": 1}, {"a": 2}]
        )
        async with connection.stream(IDS) as result:
            await result.fetchall()
    assert [sql for sql in traced if sql.startswith("SELECT id")] == [str(IDS)] * 6
    assert len([sql for sql in traced if sql.startswith("INSERT")]) == 1


async def test_opentelemetry_s_spans(opentelemetry: None, make_engine: MakeEngine) -> None:
    """There is one span per statement, as on stock, once the connection's functions are known."""
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    simple = pytest.importorskip("opentelemetry.sdk.trace.export")
    spans = export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(simple.SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    engine = make_engine(SQLitePool)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 42"))
        spans.clear()
        for _ in range(3):
            await connection.execute(text("SELECT 42"))
    assert [span.name for span in spans.get_finished_spans()] == ["SELECT"] * 3


# -- other modules --------------------------------------------------------------------------------


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    found: types.ModuleType = pytest.importorskip(request.param)
    return found


@pytest.fixture
def make(
    module: types.ModuleType, path: Path, make_engine: MakeEngine
) -> Callable[..., AsyncEngine]:
    """Return a maker of engines on the module's connections, by ``async_creator``."""

    def make(pool: type | None, **options: Any) -> AsyncEngine:
        creator = creator_of(lambda: module.connect(str(path), check_same_thread=False))
        options = {"url": "sqlite+aiosqlite://", "async_creator": creator, **options}
        return make_engine(pool, **options)

    return make


async def test_other_modules(make: Callable[..., AsyncEngine], path: Path) -> None:
    """Everything works with both kinds of door, and is closed."""
    pool = make(SQLitePool)
    await work(pool, pool)
    async with pool.begin() as connection:
        await connection.execute(text("DELETE FROM items"))
    await pool.dispose()
    await work(make(WriterPool), make(ReaderPool))


async def test_the_file_is_known(make: Callable[..., AsyncEngine], path: Path) -> None:
    """Engines with a creator share the file's turn with all other engines on it."""
    pool, writer = make(SQLitePool, write_timeout=0.1), make(WriterPool)
    await create_items(pool)
    async with writer.begin() as writing:
        await writing.execute(UPDATE_FIRST)
        assert turn_of(path).holder is not None

        async def wait() -> None:
            async with pool.begin() as connection:
                await connection.execute(UPDATE_FIRST)

        with pytest.raises(WriteTimeout, match=r"the turn.*UPDATE items"):
            await asyncio.create_task(wait())
    await wait()
    assert (await amounts(pool))[0] == 2


async def test_locks_of_other_programs(
    make: Callable[..., AsyncEngine], module: types.ModuleType, path: Path
) -> None:
    """The task waits for such a lock, and the error names its holder."""
    await create_items(make(SQLitePool))
    outside = module.connect(str(path), isolation_level=None)
    for pool in (SQLitePool, WriterPool):
        outside.execute("BEGIN IMMEDIATE")
        engine = make(pool, write_timeout=0.1)
        with pytest.raises(WriteTimeout, match="holds SQLite's lock"):
            async with engine.begin() as connection:
                await connection.execute(UPDATE_FIRST)
        waiting = make(pool)
        async with waiting.connect() as connection:
            await connection.rollback()
        with pauses(partial(outside.execute, "ROLLBACK")):
            await update(waiting)
    outside.close()


async def update(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)


async def test_readers_cannot_write(make: Callable[..., AsyncEngine]) -> None:
    """A reader that a creator has opened for writing is made read-only."""
    await create_items(make(SQLitePool))
    reader = make(ReaderPool)
    for sql in ("DELETE FROM items", "CREATE TABLE other (i)", "PRAGMA user_version = 7"):
        with pytest.raises(OperationalError, match=r"a reader of app\.db cannot change"):
            async with reader.begin() as connection:
                await connection.execute(text(sql))
    assert await amounts(reader) == [0, 0, 0]
    async with reader.connect() as connection:
        with pytest.raises(Exception, match="readonly") as caught:
            await raw_delete(connection)
        assert isinstance(caught.value, dbapi.OperationalError)


async def raw_delete(connection: Any) -> None:
    """Delete rows, bypassing this package."""
    raw = (await connection.get_raw_connection()).driver_connection
    await raw.execute("DELETE FROM items")


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "INSERT INTO items (id, amount) VALUES (1, 1)", "SELECT * FROM x"]
)
async def test_errors_are_those_of_a_stock_engine(
    sql: str, make: Callable[..., AsyncEngine], path: Path, make_engine: MakeEngine
) -> None:
    """The class is the same, whether SQLAlchemy wraps it or not."""
    ours = make(SQLitePool)
    await create_items(ours)
    found = await error_of(ours, sql)
    await ours.dispose()
    stock = make(None)
    assert found == await error_of(stock, sql)


async def error_of(engine: AsyncEngine, sql: str) -> Any:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        async with engine.begin() as connection:
            await connection.execute(text(sql))
    return type(caught.value), type(getattr(caught.value, "orig", None)), str(caught.value)


async def test_a_lost_transaction(make: Callable[..., AsyncEngine]) -> None:
    """A rollback by SQLite itself is noticed for every module."""
    engine = make(SQLitePool)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        with pytest.raises(Exception, match="UNIQUE"):
            await connection.execute(
                text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)")
            )
        with pytest.raises(OperationalError, match="has rolled back this transaction"):
            await connection.execute(UPDATE_FIRST)
        await connection.rollback()
    assert (await amounts(engine))[0] == 0


async def test_an_encrypted_database(path: Path, make_engine: MakeEngine) -> None:
    """With SQLCipher, the creator supplies the key; without it, the file cannot be read."""
    sqlcipher = pytest.importorskip("sqlcipher3")

    def connect(key: str) -> Any:
        connection = sqlcipher.connect(str(path), check_same_thread=False)
        connection.execute(f"PRAGMA key = '{key}'")
        return connection

    url = "sqlite+aiosqlite://"
    seen: list[object] = []
    for key in ("right", "right", "wrong"):
        creator = creator_of(lambda key=key: connect(key))  # type: ignore[misc]
        engine = make_engine(SQLitePool, url=url, async_creator=creator)
        try:
            await create_items(engine, 1 if not seen else 0)
            seen.append(await amounts(engine))
        except DBAPIError as error:
            seen.append(type(error.orig).__name__)
        await engine.dispose()
    assert seen == [[0], [0], "NotADatabaseError"]
    assert b"items" not in path.read_bytes()


def test_a_module_in_the_place_of_sqlite3(path: Path) -> None:
    """Some programs set ``sys.modules["sqlite3"] = pysqlite3`` before anything else."""
    pytest.importorskip("pysqlite3")
    program = f"""
import asyncio, sys
import pysqlite3, pysqlite3.dbapi2
sys.modules["sqlite3"] = pysqlite3
sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2
from pathlib import Path
from sqlalchemy import text
from sa_sqlite_pool import SQLiteDatabase

async def main():
    async with SQLiteDatabase({str(path)!r}) as database:
        async with database.write() as session:
            await session.execute(text("CREATE TABLE t (i INTEGER PRIMARY KEY)"))
            await session.execute(text("INSERT INTO t VALUES (1)"))
        async with database.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM t")) == 1
        await database.backup(Path({str(path)!r}).with_name("copy.db"))

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
