"""Door 1: an application changes one line."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import URL, event, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from sa_sqlite_pool import SQLitePool, TurnAlreadyHeldError
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, driver, files_beside, turn_of


async def test_core_and_orm(swap_in: AsyncEngine) -> None:
    """Both work as with the stock pool."""
    await create_items(swap_in)
    Session = async_sessionmaker(swap_in, expire_on_commit=False)  # noqa: N806 - SQLAlchemy's way
    async with Session.begin() as session:
        session.add(Item(id=7, amount=70))
    async with Session() as session:
        assert (await session.get_one(Item, 7)).amount == 70
        item = (await session.scalars(select(Item).where(Item.id == 7))).one()
        item.amount = 71
        await session.commit()
        assert await session.scalar(select(Item.amount).where(Item.id == 7)) == 71


async def test_by_url_alone(path: Path, make_engine: MakeEngine) -> None:
    """?plugin=sa_sqlite_pool sets the pool class."""
    engine = make_engine(url=f"sqlite+aiosqlite:///{path}?plugin=sa_sqlite_pool")
    assert isinstance(engine.pool, SQLitePool)
    await create_items(engine)
    assert files_beside(path) >= {path.name}


async def test_the_plugin_leaves_a_pool_that_the_application_names(
    path: Path, make_engine: MakeEngine
) -> None:
    """An explicit poolclass takes precedence over the URL."""
    url = f"sqlite+aiosqlite:///{path}?plugin=sa_sqlite_pool"
    assert isinstance(make_engine(NullPool, url=url).pool, NullPool)


async def test_streams(swap_in: AsyncEngine) -> None:
    """stream() and yield_per fetch in chunks."""
    await create_items(swap_in, count=500)
    async with swap_in.connect() as connection:
        result = await connection.stream(select(Item.id).order_by(Item.id))
        assert [row.id async for row in result] == list(range(1, 501))
    async with AsyncSession(swap_in) as session:
        stream = await session.stream_scalars(select(Item).execution_options(yield_per=64))
        assert len([item async for item in stream]) == 500


async def test_an_unfinished_stream_holds_nothing_after_the_return(swap_in: AsyncEngine) -> None:
    """If a stream is half read on return to the pool, no statement stays open on the connection."""
    await create_items(swap_in, count=500)
    async with swap_in.connect() as connection:
        raw = await driver(connection)
        result = await connection.stream(select(Item.id).execution_options(yield_per=10))
        await result.fetchone()
        assert raw.executor.transaction.streams
    assert not raw.executor.transaction.streams
    async with swap_in.begin() as connection:
        await connection.execute(text("DROP TABLE items"))  # refused while a statement reads it


async def test_savepoints(swap_in: AsyncEngine) -> None:
    """begin_nested() rolls back its own part and nothing else."""
    await create_items(swap_in)
    async with AsyncSession(swap_in) as session, session.begin():
        session.add(Item(id=10))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await session.execute(insert(Item).values(id=10))
        session.add(Item(id=11))
    async with AsyncSession(swap_in) as session:
        assert set(await session.scalars(select(Item.id))) == {1, 2, 3, 10, 11}


async def test_ddl_is_transactional(swap_in: AsyncEngine) -> None:
    """A rolled-back CREATE TABLE leaves no table."""
    async with swap_in.connect() as connection:
        await connection.execute(text("CREATE TABLE gone (id)"))
        await connection.rollback()
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []


async def test_autocommit(path: Path, make_engine: MakeEngine) -> None:
    """Each statement commits by itself and keeps no turn; VACUUM is possible."""
    engine = make_engine(SQLitePool, isolation_level="AUTOCOMMIT")
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        assert not (await driver(connection)).in_transaction
        assert turn_of(path).holder is None
        await connection.execute(text("VACUUM"))
        await connection.rollback()
    assert await amounts(engine) == [1, 0, 0]


async def test_autocommit_by_execution_option_ends_with_the_checkout(swap_in: AsyncEngine) -> None:
    """The next checkout of the same connection is transactional again."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(UPDATE_FIRST)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
    assert await amounts(swap_in) == [1, 0, 0]


async def test_executemany_in_autocommit_is_all_or_nothing(make_engine: MakeEngine) -> None:
    """No part of it is kept, whatever interrupts it."""
    engine = make_engine(SQLitePool, isolation_level="AUTOCOMMIT")
    await create_items(engine, count=0)
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(
                text("INSERT INTO items (id, amount) VALUES (:id, 0)"),
                [{"id": 1}, {"id": 2}, {"id": 1}],
            )
    assert await amounts(engine) == []


async def test_isolation_levels(swap_in: AsyncEngine) -> None:
    """SERIALIZABLE and READ UNCOMMITTED are accepted, as by the dialect."""
    for level in ("SERIALIZABLE", "READ UNCOMMITTED"):
        async with swap_in.connect() as connection:
            await connection.execution_options(isolation_level=level)
            assert await connection.get_isolation_level() == level


async def test_raw_connections(path: Path, swap_in: AsyncEngine) -> None:
    """driver_connection is an aiosqlite connection that reads and writes."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.execute("INSERT INTO items (id, amount) VALUES (9, 9)")
        cursor = await raw.execute("SELECT count(*) FROM items")
        assert await cursor.fetchone() == (4,)
        await raw.commit()  # or backup() waits for its own connection for ever, as on stock
        copy = sqlite3.connect(path.with_name("copy.db"), check_same_thread=False)
        await raw.backup(copy)
        assert copy.execute("SELECT count(*) FROM items").fetchone() == (4,)
        copy.close()


async def test_raw_connections_wait_for_locks_by_themselves(swap_in: AsyncEngine) -> None:
    """SQLite's busy timeout is on while the application has the raw connection, and then off."""
    await create_items(swap_in)

    async def milliseconds(connection: AsyncConnection) -> Any:
        await connection.execute(text("SELECT 1"))
        sqlite = (await driver(connection)).worker.connection
        return sqlite.execute("PRAGMA busy_timeout").fetchone()[0]

    async with swap_in.connect() as connection:
        assert await milliseconds(connection) == 0
        assert (await connection.get_raw_connection()).driver_connection is not None
        assert await milliseconds(connection) == 30_000
    async with swap_in.connect() as connection:
        assert await milliseconds(connection) == 0


async def test_run_sync_and_run_async(swap_in: AsyncEngine) -> None:
    """The bridges work in both directions."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        raw = await driver(connection)

        async def count(driver_connection: Any) -> Any:
            cursor = await driver_connection.execute("SELECT count(*) FROM items")
            return await cursor.fetchone()

        assert await connection.run_sync(lambda _: raw.run_async(count)) == (3,)


async def test_event_listeners(make_engine: MakeEngine) -> None:
    """Listeners of connect, checkout and begin run as with the stock pool."""
    engine = make_engine(SQLitePool)
    heard: list[str] = []

    @event.listens_for(engine.sync_engine, "connect")
    def connect(dbapi_connection: Any, _record: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA cache_size = -1234")
        cursor.close()
        dbapi_connection.execute("PRAGMA journal_mode = WAL")
        dbapi_connection.create_function("twice", 1, lambda number: 2 * number)
        heard.append("connect")

    for name in ("checkout", "begin", "commit"):
        event.listen(engine.sync_engine, name, lambda *_, name=name: heard.append(name))

    async with engine.begin() as connection:
        assert (await connection.execute(text("PRAGMA cache_size"))).scalar_one() == -1234
        assert (await connection.execute(text("SELECT twice(21)"))).scalar_one() == 42
    assert heard == ["connect", "checkout", "begin", "commit"]


async def test_the_documented_begin_recipe(path: Path, make_engine: MakeEngine) -> None:
    """Applications that send BEGIN themselves, as in SQLAlchemy's documentation, keep working."""
    engine = make_engine(SQLitePool)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    await create_items(engine)
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        assert turn_of(path).holder is not None
    assert turn_of(path).holder is None
    assert await amounts(engine) == [1, 0, 0]


async def test_do_connect_listeners_and_connect_args(path: Path, make_engine: MakeEngine) -> None:
    """Arguments that the application passes to sqlite3.connect still reach it."""
    engine = make_engine(SQLitePool, connect_args={"cached_statements": 7, "timeout": 1})
    seen: dict[str, Any] = {}

    @event.listens_for(engine.sync_engine.dialect, "do_connect")
    def do_connect(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        seen.update(parameters)

    await create_items(engine)
    assert seen["cached_statements"] == 7


async def test_async_creator(path: Path) -> None:
    """The application's own creator is used, even with check_same_thread=True."""

    async def creator() -> aiosqlite.Connection:
        connection = aiosqlite.connect(path)
        connection._thread.daemon = True
        return await connection

    engine = create_async_engine("sqlite+aiosqlite://", async_creator=creator, poolclass=SQLitePool)
    try:
        await create_items(engine)
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
        assert await amounts(engine) == [1, 0, 0]
    finally:
        await engine.dispose()


@pytest.mark.parametrize("database", ["", "/:memory:", "/file::memory:?uri=true"])
async def test_in_memory(database: str, make_engine: MakeEngine) -> None:
    """An in-memory database acts like a file: one for all connections, and gone at the end."""
    engine = make_engine(SQLitePool, url=f"sqlite+aiosqlite://{database}")
    await create_items(engine)
    async with engine.connect() as reading:
        assert (await reading.execute(select(func.count(Item.id)))).scalar_one() == 3
        async with engine.begin() as writing:
            await writing.execute(UPDATE_FIRST)
    assert await amounts(engine) == [1, 0, 0]
    engine_files = engine.pool._connector.location.path  # type: ignore[attr-defined]
    assert Path(engine_files).exists()
    other = make_engine(SQLitePool, url=f"sqlite+aiosqlite://{database}")
    with pytest.raises(OperationalError, match="no such table"):
        await amounts(other)


@pytest.mark.parametrize("name", ["a b.db", "naïve-ß-数据.db", "what?.db", "item#1.db", "100%.db"])
async def test_odd_paths(tmp_path: Path, name: str, make_engine: MakeEngine) -> None:
    """Spaces, Unicode and URI characters in a path are ordinary characters."""
    url = URL.create("sqlite+aiosqlite", database=str(tmp_path / name))
    engine = make_engine(SQLitePool, url=url)
    await create_items(engine)
    assert (tmp_path / name).stat().st_size > 0


async def test_relative_paths_and_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_engine: MakeEngine
) -> None:
    """A relative path and a file: URI with a query string denote one file with one turn."""
    monkeypatch.chdir(tmp_path)
    plain = make_engine(SQLitePool, url="sqlite+aiosqlite:///app.db")
    by_uri = make_engine(SQLitePool, url="sqlite+aiosqlite:///file:app.db?mode=rwc&uri=true")
    await create_items(plain)
    assert await amounts(by_uri) == [0, 0, 0]
    async with plain.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        with pytest.raises(TurnAlreadyHeldError):
            async with by_uri.begin() as other:
                await other.execute(UPDATE_FIRST)


async def test_a_read_only_uri_reads(path: Path, make_engine: MakeEngine) -> None:
    """mode=ro is respected: no setting is changed, reads work, and SQLite refuses writes."""
    await create_items(make_engine(SQLitePool))
    engine = make_engine(SQLitePool, url=f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true")
    assert await amounts(engine) == [0, 0, 0]
    async with engine.connect() as connection:
        with pytest.raises(OperationalError, match="readonly"):
            await connection.execute(UPDATE_FIRST)


async def test_foreign_keys_are_the_applications(make_engine: MakeEngine) -> None:
    """They are left off, as in SQLite, or switched on and verified on request."""
    for pragmas, expected in ((None, 0), ({"foreign_keys": True}, 1)):
        engine = make_engine(SQLitePool, pragmas=pragmas)
        async with engine.connect() as connection:
            assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == expected


async def test_the_pools_log_where_those_of_sqlalchemy_do(
    swap_in: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """``logging.getLogger("sqlalchemy.pool")`` receives their messages."""
    with caplog.at_level(logging.DEBUG, logger="sqlalchemy.pool"):
        async with swap_in.connect():
            pass
    assert {record.name for record in caplog.records} == {"sqlalchemy.pool.impl.SQLitePool"}
