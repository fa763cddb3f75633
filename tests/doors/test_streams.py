"""Streams that outlive a COMMIT, a ROLLBACK, their reader, or their checkout."""

from __future__ import annotations

import gc
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.ext.asyncio.exc import AsyncMethodRequired

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, driver

IDS = text("SELECT id FROM items ORDER BY id")
END = {"commit": AsyncConnection.commit, "rollback": AsyncConnection.rollback}
# Python 3.10's ``rollback()`` resets all cursors, which ends a stock engine's streams.
STOCK = pytest.param(None, marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="resets"))
POOLS = [STOCK, SQLitePool, WriterPool]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("end", END)
async def test_a_stream_goes_on(end: str, pool: type | None, make_engine: MakeEngine) -> None:
    """It continues after COMMIT or ROLLBACK of intermediate writes, as on a stock engine."""
    await create_items(make_engine(SQLitePool), 10)
    engine = make_engine(pool)
    async with engine.connect() as connection:
        result = await connection.stream(IDS)
        rows = [*(await result.fetchmany(3))]
        await connection.execute(UPDATE_FIRST)
        await END[end](connection)
        rows += await result.fetchmany(3)
        await connection.execute(UPDATE_FIRST)
        await END[end](connection)
        rows += await result.fetchall()
    assert [row.id for row in rows] == list(range(1, 11))
    assert (await amounts(engine))[0] == (2 if end == "commit" else 0)


@pytest.mark.parametrize("pool", POOLS)
async def test_streams_without_rows(pool: type | None, make_engine: MakeEngine) -> None:
    """SQLAlchemy fetches from each statement of a connection with ``stream_results``."""
    await create_items(make_engine(SQLitePool))
    engine = make_engine(pool)
    async with engine.connect() as connection:
        await connection.execution_options(stream_results=True)
        async with connection.begin_nested():
            await connection.stream(UPDATE_FIRST)
            many = text("INSERT INTO items (amount) VALUES (:amount)")
            with pytest.raises(AsyncMethodRequired):  # after it has run
                await connection.execute(many, [{"amount": 8}, {"amount": 9}])
        await connection.stream(text("SAVEPOINT a"))
        async with connection.stream(text("SELECT amount FROM items")) as result:
            assert (await result.scalars().all())[-2:] == [8, 9]
        await connection.commit()
    assert await amounts(engine) == [1, 0, 0, 8, 9]


async def test_a_reader_s_stream_goes_on(make_engine: MakeEngine) -> None:
    """It continues after the read transaction, and keeps the snapshot until it is exhausted."""
    await create_items(make_engine(SQLitePool), 10)
    engine = make_engine(ReaderPool)
    async with engine.connect() as connection:
        result = await connection.stream(IDS)
        rows = [*(await result.fetchmany(3))]
        await connection.rollback()
        reading = (await driver(connection)).executor.transaction
        assert reading.snapshot is not None
        rows += await result.fetchall()
        assert reading.snapshot is None
    assert [row.id for row in rows] == list(range(1, 11))


@pytest.mark.parametrize("pool", POOLS)
async def test_rollback_of_ddl_ends_a_stream(pool: type | None, make_engine: MakeEngine) -> None:
    """If the schema is rolled back, SQLite raises an error, and the connection stays usable."""
    await create_items(make_engine(SQLitePool), 10)
    engine = make_engine(pool)
    async with engine.connect() as connection:
        result = await connection.stream(IDS)
        await result.fetchmany(3)
        if pool is None:  # a stock connection begins none for DDL
            await connection.execute(text("BEGIN"))
        await connection.execute(text("CREATE TABLE other (id INTEGER)"))
        await connection.rollback()
        with pytest.raises(OperationalError, match="abort"):
            await result.fetchall()
        await connection.rollback()
        assert len((await connection.execute(IDS)).all()) == 10


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
async def test_a_session_that_ends_closes_its_stream(end: str, make_engine: MakeEngine) -> None:
    """This returns the connection to the pool; the error says so and names the way out."""
    engine = make_engine(SQLitePool)
    await create_items(engine, 10)
    async with AsyncSession(engine) as session:
        result = await session.stream(select(Item.id))
        await result.fetchmany(3)
        await getattr(session, end)()
        with pytest.raises(ProgrammingError, match=r"returned to the pool.*separate connection"):
            await result.fetchmany(3)


async def test_no_stream_at_rest(make_engine: MakeEngine) -> None:
    """A returned connection releases the snapshots of its streams."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    await create_items(engine)
    async with engine.connect() as connection:
        result = await connection.stream(IDS)
        await result.fetchone()
    await create_other_row(engine)
    async with engine.connect() as connection:
        assert len((await connection.execute(IDS)).all()) == 4
        assert not (await driver(connection)).executor.transaction.streams


async def create_other_row(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO items (amount) VALUES (7)"))


async def test_the_stream_of_a_connection_that_was_given_up(swap_in: AsyncEngine) -> None:
    """A fetch that starts in the thread at that moment raises a disconnect, as statements do."""
    await create_items(swap_in, 10)
    async with swap_in.connect() as connection:
        result = await connection.stream(IDS)
        await result.fetchmany(3)
        adapted = await driver(connection)
        (stream,) = adapted.executor.transaction.streams
        adapted.give_up("it was closed", keep=False)
        with pytest.raises(sqlite3.OperationalError, match="no active connection: it was closed"):
            stream.cursor.fetchone()
        with pytest.raises(OperationalError, match="no active connection: it was closed"):
            await result.fetchmany(3)


@pytest.mark.parametrize("pool", [None, SQLitePool])
async def test_an_abandoned_stream_lets_go(pool: type | None, make_engine: MakeEngine) -> None:
    """An unreachable stream keeps no snapshot, so the next statement sees new data."""
    await create_items(make_engine(SQLitePool))
    engine, other = make_engine(pool), make_engine(SQLitePool)
    async with engine.connect() as connection:
        for count in range(3, 6):
            result: Any = await connection.stream(IDS)
            await result.fetchone()
            del result
            gc.collect()
            await create_other_row(other)
            assert len((await connection.execute(IDS)).all()) == count + 1
            await connection.execute(UPDATE_FIRST)  # no BUSY_SNAPSHOT
            await connection.rollback()


async def test_what_is_fetched_from_is_not_abandoned(make_engine: MakeEngine) -> None:
    """Any number of streams may be open on a connection at the same time."""
    engine = make_engine(SQLitePool)
    await create_items(engine, 5)
    async with engine.connect() as connection:
        streams = [await connection.stream(IDS) for _ in range(3)]
        gc.collect()
        await connection.execute(IDS)
        assert [len(await stream.fetchall()) for stream in streams] == [5, 5, 5]


async def test_a_stream_cursor_executes_again(path: Path, swap_in: AsyncEngine) -> None:
    """The previous statement is closed, and keeps no snapshot."""
    await create_items(swap_in)

    def use(connection: Any) -> Any:
        cursor = connection.connection.dbapi_connection.cursor(server_side=True)
        cursor.execute("SELECT id FROM items")
        cursor.fetchone()
        cursor.execute("SELECT 7")
        return cursor.fetchall(), len(connection.connection.dbapi_connection._streams)

    async with swap_in.connect() as connection:
        assert await connection.run_sync(use) == ([(7,)], 1)


async def test_tracers_that_listen_see_streams(swap_in: AsyncEngine) -> None:
    """Execution events receive a cursor that describes a result set."""
    await create_items(swap_in)
    described: list[Any] = []

    @event.listens_for(swap_in.sync_engine, "after_cursor_execute")
    def note(_connection: Any, cursor: Any, *_: Any) -> None:
        described.append([name for name, *_ in cursor.description])

    async with swap_in.connect() as connection, connection.stream(IDS) as result:
        await result.fetchall()
    assert described == [["id"]]


@pytest.mark.parametrize("pool", [SQLitePool, WriterPool])
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_one_that_writes_in_autocommit_keeps_no_lock(
    pool: type, placement: str, path: Path, make_engine: MakeEngine
) -> None:
    """Its turn ends with its execution, and so must SQLite's lock."""
    engine = make_engine(pool, placement=placement, isolation_level="AUTOCOMMIT")
    await create_items(engine)
    async with engine.connect() as connection:
        added = await connection.stream(
            text("UPDATE items SET amount = 5 RETURNING id"), execution_options={"yield_per": 2}
        )
        assert not is_locked(path)
        assert [row.id async for row in added] == [1, 2, 3]
        again = await connection.stream(text("UPDATE items SET amount = 6 RETURNING id"))
        assert await again.fetchmany(1) == [(1,)]
        assert await again.fetchone() == (2,)
        await again.close()
        await connection.stream(UPDATE_FIRST)
        assert not is_locked(path)
    assert await amounts(engine) == [7, 6, 6]
