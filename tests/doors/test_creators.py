"""Connections that are not opened by the URL: creators and ``do_connect`` listeners."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiosqlite
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ConfigurationError,
    ReaderPool,
    SQLitePool,
    TurnAlreadyHeldError,
    WriterPool,
    statistics,
)
from sa_sqlite_pool.compat.greenlets import greenlet_spawn
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.doors.other_drivers import creator_of
from tests.helpers import UPDATE_FIRST, amounts, create_items, files_beside, turn_of

NOWHERE = "sqlite+aiosqlite://"
POOLS = [SQLitePool, WriterPool]


def counting(path: Path, opened: list[Path]) -> Any:
    def connect() -> sqlite3.Connection:
        opened.append(path)
        return sqlite3.connect(path)

    return creator_of(connect)


async def assert_one_turn(engine: AsyncEngine, other: AsyncEngine, path: Path) -> None:
    """Assert that a task that writes on both engines is told that it would wait for itself."""
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        assert turn_of(path).holder is not None
        with pytest.raises(TurnAlreadyHeldError):
            async with other.begin() as beside:
                await beside.execute(UPDATE_FIRST)


# -- creators -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
async def test_a_creator_s_file_has_the_turn(
    pool: type, path: Path, make_engine: MakeEngine
) -> None:
    """SQLite is asked for the file, even under another name, and each connection is opened once."""
    by_url = make_engine(SQLitePool)
    await create_items(by_url)
    link, opened = path.with_name("link.db"), list[Path]()
    link.symlink_to(path)
    engine = make_engine(pool, url=NOWHERE, async_creator=counting(link, opened))
    assert engine.pool.waiting == 0  # type: ignore[attr-defined]  # asked before it can be known
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM items"))).scalar_one() == 3
    assert len(opened) == 1
    await assert_one_turn(engine, by_url, path)
    await assert_one_turn(by_url, engine, path)
    await engine.dispose()
    assert await amounts(engine) == [2, 0, 0]


async def test_one_connection_for_one_task(path: Path, make_engine: MakeEngine) -> None:
    """Tasks that connect at the same time as the first ones open one connection each."""
    opened: list[Path] = []
    engine = make_engine(SQLitePool, url=NOWHERE, async_creator=counting(path, opened))
    inside, all_inside = 0, asyncio.Event()

    async def use() -> None:
        nonlocal inside
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            inside += 1
            if inside == 3:
                all_inside.set()
            await all_inside.wait()

    await asyncio.gather(*(use() for _ in range(3)))
    assert len(opened) == 3


async def test_a_creator_s_connection_is_closed_where_it_was_opened(
    path: Path, make_engine: MakeEngine
) -> None:
    """Its driver lets only that thread close it: at rest, before a fork or at exit."""
    opened: list[Path] = []
    engine = make_engine(SQLitePool, url=NOWHERE, async_creator=counting(path, opened))
    await create_items(engine)
    assert isinstance(engine.pool, FairPool)
    engine.pool.close_at_exit()
    assert files_beside(path) == {path.name}
    assert await amounts(engine) == [0, 0, 0]
    assert len(opened) == 2


async def test_a_creator_s_database_in_memory(make_engine: MakeEngine) -> None:
    """An in-memory database has no file, and nothing fails because of that."""
    creator = creator_of(lambda: sqlite3.connect(":memory:"))
    engine = make_engine(SQLitePool, url=NOWHERE, async_creator=creator, pool_size=1)
    await create_items(engine)
    assert await amounts(engine) == [0, 0, 0]


async def test_creators_with_and_without_the_record(path: Path, make_engine: MakeEngine) -> None:
    """A synchronous creator may accept the pool's record, as in SQLAlchemy."""
    dialect = make_engine(SQLitePool).sync_engine.dialect
    records: list[Any] = []

    def connect() -> Any:
        return dialect.connect(str(path), async_creator_fn=None)

    def with_record(record: Any) -> Any:
        records.append(record)
        record.info["seen"] = True
        return connect()

    for creator in (connect, with_record):
        engine = make_engine(SQLitePool, url=NOWHERE, creator=creator)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            raw = await connection.get_raw_connection()
            assert raw.info.get("seen", False) is (creator is with_record)
    assert len(records) == 1


async def test_a_creator_that_fails(path: Path, make_engine: MakeEngine) -> None:
    """Its error is raised to the caller as on a stock engine, and the next call retries."""
    attempts: list[int] = []

    async def creator() -> aiosqlite.Connection:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionRefusedError("not yet")
        return await creator_of(lambda: sqlite3.connect(path))()

    engine = make_engine(WriterPool, url=NOWHERE, async_creator=creator)
    with pytest.raises(ConnectionRefusedError, match="not yet"):
        await engine.connect()
    await create_items(engine)
    assert len(attempts) == 2


async def test_a_creator_of_something_else(path: Path, make_engine: MakeEngine) -> None:
    """An object that the pool cannot use is refused, naming the way out."""
    with closing(sqlite3.connect(path)) as plain:
        for something in (plain, Mock(), None):
            engine = make_engine(SQLitePool, url=NOWHERE, creator=lambda it=something: it)
            with pytest.raises(ConfigurationError, match="async_creator="):
                await engine.connect()


async def test_a_creator_of_several_files(tmp_path: Path, make_engine: MakeEngine) -> None:
    """An engine has a single turn, so a second database is refused."""
    names = iter(["a.db", "b.db"])
    creator = creator_of(lambda: sqlite3.connect(tmp_path / next(names)))
    engine = make_engine(SQLitePool, url=NOWHERE, async_creator=creator)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(
            ConfigurationError, match=r"b\.db now and a\.db before.*engine for each"
        ):
            await engine.connect()


async def test_a_creator_s_connection_of_another_pool(path: Path, make_engine: MakeEngine) -> None:
    """The raw connection of an adapter stays open when that adapter is discarded."""
    from_pool = make_engine(SQLitePool).pool._creator

    async def creator() -> Any:
        adapted = await greenlet_spawn(from_pool)
        return adapted.driver_connection

    engine = make_engine(SQLitePool, url=NOWHERE, async_creator=creator)
    await create_items(engine)
    assert await amounts(engine) == [0, 0, 0]


async def test_an_early_connection_that_is_not_needed(path: Path, make_engine: MakeEngine) -> None:
    """It is closed with the pool."""
    connections: list[aiosqlite.Connection] = []

    async def creator() -> aiosqlite.Connection:
        connections.append(await creator_of(lambda: sqlite3.connect(path))())
        return connections[-1]

    engine = make_engine(SQLitePool, url=NOWHERE, async_creator=creator)
    connector = engine.pool._connector  # type: ignore[attr-defined]
    await greenlet_spawn(connector.find_file)
    await engine.dispose()
    connections[0]._thread.join(30)
    assert connections[0]._connection is None


async def test_a_creator_s_reader_cannot_write(path: Path, make_engine: MakeEngine) -> None:
    """A connection that was opened for writing is made read-only, and so is the raw connection."""
    await create_items(make_engine(SQLitePool))
    creator = creator_of(lambda: sqlite3.connect(path))
    engine = make_engine(ReaderPool, url=NOWHERE, async_creator=creator)
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        with pytest.raises(sqlite3.DatabaseError, match=r"readonly|not authorized"):
            await raw.execute("DELETE FROM items")
    assert await amounts(engine) == [0, 0, 0]


async def test_a_creator_s_file_that_was_inherited(
    path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked process is refused the file, both before and after SQLite was asked for it."""
    creator = creator_of(lambda: sqlite3.connect(path))
    used, fresh = (make_engine(SQLitePool, url=NOWHERE, async_creator=creator) for _ in range(2))
    async with used.connect() as connection:
        await connection.invalidate()
    monkeypatch.setattr("sa_sqlite_pool.opening.connector.inherited_files", {str(path)})
    for engine in (used, fresh, fresh):
        with pytest.raises(OperationalError, match="the process was forked while a connection"):
            await engine.connect()


# -- do_connect -----------------------------------------------------------------------------------


async def test_a_listener_opens_the_connection(path: Path, make_engine: MakeEngine) -> None:
    """The returned connection is used, its file has the turn, and ``record.info`` is preserved."""
    by_url = make_engine(SQLitePool)
    await create_items(by_url)
    opened: list[Path] = []
    engine = make_engine(WriterPool, url="sqlite+aiosqlite:///elsewhere.db")

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(dialect: Any, record: Any, _args: Any, _parameters: Any) -> Any:
        record.info["boom"] = "one"
        return dialect.connect(async_creator_fn=counting(path, opened))

    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.info["boom"] == "one"
        assert (await connection.execute(text("SELECT count(*) FROM items"))).scalar_one() == 3
    assert len(opened) == 1
    await assert_one_turn(engine, by_url, path)
    assert not Path("elsewhere.db").exists()


async def test_a_listener_of_all_engines_opens_the_connection(
    path: Path, make_engine: MakeEngine
) -> None:
    """The listener runs before anything else of this package."""
    await create_items(make_engine(SQLitePool))
    opened: list[Path] = []

    def do_connect(dialect: Any, record: Any, _args: Any, _parameters: Any) -> Any:
        record.info["boom"] = "one"
        return dialect.connect(async_creator_fn=counting(path, opened))

    event.listen(Engine, "do_connect", do_connect)
    try:
        engine = make_engine(SQLitePool, url="sqlite+aiosqlite:///elsewhere.db")
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.info["boom"] == "one"
            await connection.execute(UPDATE_FIRST)
            assert turn_of(path).holder is not None
            await connection.commit()
        assert len(opened) == 1
    finally:
        event.remove(Engine, "do_connect", do_connect)


@pytest.mark.parametrize("pool", [SQLitePool, WriterPool, ReaderPool])
async def test_a_listener_replaces_the_database(
    pool: type, path: Path, make_engine: MakeEngine
) -> None:
    """The file that is finally opened has the turn, and its readers cannot write."""
    by_url = make_engine(SQLitePool)
    await create_items(by_url)
    engine = make_engine(pool, url=f"sqlite+aiosqlite:///{path.with_name('other.db')}")

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(_dialect: Any, _record: Any, args: Any, _parameters: Any) -> None:
        args[:] = [str(path)]

    assert await amounts(engine) == [0, 0, 0]
    if pool is ReaderPool:
        async with engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            with pytest.raises(sqlite3.DatabaseError, match=r"readonly|not authorized"):
                await raw.execute("DELETE FROM items")
    else:
        await assert_one_turn(engine, by_url, path)


async def test_a_listener_that_only_looks(path: Path, make_engine: MakeEngine) -> None:
    """The engine is as fast and as closely monitored as without the listener."""
    engine = make_engine(SQLitePool)
    records: list[Any] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(_dialect: Any, record: Any, _args: Any, parameters: Any) -> None:
        records.append(record)
        parameters.update(isolation_level="IMMEDIATE", check_same_thread=True)

    await create_items(engine)
    assert engine.pool.keeper is not None  # type: ignore[attr-defined]
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).dbapi_connection
        assert raw.worker.may_run_inline
    assert len(records) == 1


async def test_a_listener_that_is_refused(tmp_path: Path, make_engine: MakeEngine) -> None:
    """An impossible location is refused before the listener is called."""
    engine = make_engine(SQLitePool, url=f"sqlite+aiosqlite:///{tmp_path}/none/a.db")
    called: list[int] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(*_: Any) -> None:
        called.append(1)

    with pytest.raises(OperationalError, match="does not exist"):
        await engine.connect()
    assert not called


@pytest.mark.parametrize("pool", [ReaderPool, WriterPool])
async def test_its_reads_count_as_reads(path: Path, make_engine: MakeEngine, pool: type) -> None:
    """Reads are counted as reads, although they end in a thread."""
    await create_items(make_engine(SQLitePool))
    engine = make_engine(pool, url=NOWHERE, async_creator=counting(path, []))
    async with engine.connect() as connection:
        for end in (connection.commit, connection.rollback):
            await connection.execute(text("SELECT * FROM items"))
            await end()
    ended = statistics(engine).engines[-1].transactions
    assert (ended.reads, ended.commits, ended.rollbacks) == (2, 0, 0)
