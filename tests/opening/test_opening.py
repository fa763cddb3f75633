"""The cost of opening, counted in hops, threads and statements, must not grow unnoticed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.opening import connector, set_up
from sa_sqlite_pool.sqlite import configuring
from tests.conftest import MakeEngine
from tests.helpers import driver

POOLS = [SQLitePool, WriterPool, ReaderPool]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the names of all threads that are started."""
    started: list[str] = []
    start = threading.Thread.start

    def noted(self: threading.Thread) -> None:
        started.append(self.name)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return started


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the statements that SQLite receives from a connection's set-up on."""
    told: list[str] = []
    configure: Callable[..., bool] = configuring.configure

    def traced(connection: sqlite3.Connection, *arguments: Any, **options: Any) -> bool:
        connection.set_trace_callback(told.append)
        return configure(connection, *arguments, **options)

    for module in (connector, set_up):
        monkeypatch.setattr(module, "configure", traced)
    return told


@pytest.fixture
def existing(path: Path) -> Path:
    """Create a database in WAL mode."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE items (id)")
    return path


async def hops_of_first_read(make_engine: MakeEngine, poolclass: type) -> int:
    engine = make_engine(poolclass)
    async with engine.connect() as connection:
        worker = (await driver(connection)).worker
        assert isinstance(worker, ConnectionThread)
        opening = worker.hops  # in addition to the one that opens the file
        await connection.execute(text("SELECT * FROM items"))
    return opening


@pytest.mark.usefixtures("existing")
@pytest.mark.parametrize("poolclass", POOLS)
async def test_a_first_connection_takes_one_hop_and_one_thread(
    make_engine: MakeEngine, poolclass: type, threads: list[str]
) -> None:
    """If the file needs no changes, opening and set-up share one hop, for a reader as well."""
    assert await hops_of_first_read(make_engine, poolclass) == 0
    assert len(threads) == 1


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_a_new_file_takes_no_more(
    make_engine: MakeEngine, path: Path, poolclass: type, threads: list[str]
) -> None:
    async with make_engine(poolclass).connect() as connection:
        assert (await driver(connection)).worker.hops == 0
    assert len(threads) == 1
    assert path.exists()


async def test_the_facade_opens_two(existing: Path, threads: list[str]) -> None:
    """One is for the writer and one for the first reader, beside the one that serves `status`."""
    async with SQLiteDatabase(existing) as db, db.read() as session:
        await session.execute(text("SELECT * FROM items"))
    assert len([name for name in threads if name != "sa_sqlite_pool-status"]) == 2


@pytest.mark.usefixtures("existing")
@pytest.mark.parametrize(
    ("poolclass", "most"), [(SQLitePool, 9), (WriterPool, 11), (ReaderPool, 8)]
)
async def test_sqlite_is_told_what_is_needed(
    make_engine: MakeEngine, poolclass: type, most: int, statements: list[str]
) -> None:
    """It gets settings, a check of the file, and SQLAlchemy's query, but no query for functions."""
    async with make_engine(poolclass).connect() as connection:
        await connection.execute(text("SELECT * FROM items"))
    pragmas = [sql for sql in statements if sql.startswith("PRAGMA")]
    assert len(pragmas) <= most
    assert "PRAGMA function_list" not in pragmas
    assert pragmas[-1] == "PRAGMA read_uncommitted"


async def test_a_reader_that_comes_first_prepares_the_file(
    make_engine: MakeEngine, path: Path
) -> None:
    """A file in another mode is switched to WAL; an empty or missing one is created in WAL."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE items (id)")
    async with make_engine(ReaderPool).connect() as reader:
        await reader.execute(text("SELECT * FROM items"))
        assert await reader.scalar(text("PRAGMA journal_mode")) == "wal"


async def test_functions_of_the_application_are_known(make_engine: MakeEngine, path: Path) -> None:
    """Those registered in ``on_connect`` are queried, and later ones are recorded."""
    engine = make_engine(
        SQLitePool, on_connect=lambda raw: raw.create_function("early", 0, lambda: 1)
    )
    async with engine.connect() as connection:
        own = await driver(connection)
        await connection.run_sync(lambda _: own.create_function("Late", 0, lambda: 2))
        assert await connection.scalar(text("SELECT early() + late()")) == 3
        assert own.executor.authorizer.functions is not None
        assert {"early", "late"} <= own.executor.authorizer.functions
        assert own.executor.authorizer.called
    plain = make_engine(SQLitePool)
    async with plain.connect() as connection:
        own = await driver(connection)
        await connection.run_sync(lambda _: own.create_function("Late", 0, lambda: 2))
        assert await connection.scalar(text("SELECT late()")) == 2
        assert own.executor.authorizer.called


@pytest.mark.parametrize(("database", "level"), [("", 0), (":memory:", 0), ("app.db", 1)])
async def test_a_database_in_memory_syncs_nothing(path: Path, database: str, level: int) -> None:
    """There is no disk to wait for; a file is synced as by default, NORMAL."""
    url = "sqlite+aiosqlite:///" + (str(path.with_name(database)) if level else database)
    engine = create_async_engine(url, poolclass=SQLitePool)
    async with engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA synchronous")) == level
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
    await engine.dispose()
    if level:
        return
    async with SQLiteDatabase(":memory:") as db:
        for one in (db.writer_engine, db.reader_engine):
            async with one.connect() as connection:
                assert await connection.scalar(text("PRAGMA synchronous")) == level
