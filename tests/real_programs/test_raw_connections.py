"""Operations of an application on aiosqlite's connection itself."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import text

from .doors import Application, Door, at_once, outside


async def raw_of(connection: Any) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def close(raw: Any) -> None:
    """Close it; the call must return, even with an error."""
    with suppress(ValueError, sqlite3.Error):
        await raw.close()


async def works(app: Application) -> None:
    await app.write("CREATE TABLE IF NOT EXISTS t (x)", "INSERT INTO t VALUES (1)")
    assert await app.value("SELECT count(*) FROM t") >= 1


async def test_closed_after_invalidate(door: Door) -> None:
    """close() of the raw connection returns after SQLAlchemy has given it up."""
    app = await door.open()
    for engine in app.engines:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            raw = await raw_of(connection)
            await connection.invalidate()
            await at_once(close(raw))
    await works(app)


async def test_closed_after_a_soft_invalidation(door: Door) -> None:
    """The same applies if the pool was told to replace it at the next checkout."""
    app = await door.open()
    async with app.writer.connect() as connection:
        proxied = await connection.get_raw_connection()
        raw = proxied.driver_connection
        proxied.invalidate(soft=True)
    async with app.writer.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await at_once(close(raw))
    await works(app)


async def test_closed_after_dispose(door: Door) -> None:
    """The same applies after engine.dispose()."""
    app = await door.open()
    async with app.reader.connect() as connection:
        await connection.execute(text("SELECT 1"))
        raw = await raw_of(connection)
    await app.close()
    await at_once(close(raw))


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_closed_after_the_garbage_collector(door: Door) -> None:
    """The same applies if the connection was lost and collected."""
    if door.kind == "stock":  # a race there: aiosqlite's close() may find its thread gone, and wait
        return
    app = await door.open()
    proxied: Any = await app.writer.raw_connection()
    raw = proxied.driver_connection
    del proxied
    gc.collect()
    await asyncio.sleep(0)
    await at_once(close(raw))
    await works(app)


async def test_closed_after_detach(door: Door) -> None:
    """A detached connection belongs to the application, which has to close it."""
    app = await door.open()
    if door.kind not in {"stock", "swap-in"}:
        return
    connection: Any = await app.writer.connect()
    raw = await raw_of(connection)
    connection.sync_connection.detach()
    await connection.close()
    await at_once(close(raw))
    await works(app)


async def test_closed_twice_at_the_same_time(door: Door) -> None:
    """Two tasks that close it both return."""
    app = await door.open()
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await connection.invalidate()
        await at_once(_both(raw))
    await works(app)


async def _both(raw: Any) -> None:
    await asyncio.gather(close(raw), close(raw))


async def test_its_own_methods(door: Door) -> None:
    """Statements, backup and iterdump of aiosqlite's connection work beside SQLAlchemy's."""
    app = await door.open()
    await works(app)
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        cursor = await raw.execute("SELECT count(*) FROM t")
        assert (await cursor.fetchone())[0] == 1
        await cursor.close()
        async with raw.execute("SELECT x FROM t") as rows:
            assert [tuple(row) async for row in rows] == [(1,)]
        if hasattr(raw._conn, "iterdump"):  # not in every module with another SQLite
            lines = [line async for line in raw.iterdump()]
            assert any("INSERT INTO" in line for line in lines)
        with closing(sqlite3.connect(":memory:", check_same_thread=False)) as target:
            await raw.backup(target)
            assert target.execute("SELECT count(*) FROM t").fetchone() == (1,)
        await raw.execute("INSERT INTO t VALUES (2)")
        await raw.commit()
    assert await app.value("SELECT count(*) FROM t") == 2


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "serialize"), reason="Python 3.11 has it")
async def test_serialize(reading: Door) -> None:
    """It returns the database as bytes."""
    app = await reading.open()
    await works(app)
    async with app.reader.connect() as connection:
        raw = await raw_of(connection)
        data = await raw._execute(raw._conn.serialize)
        assert data[:15] == b"SQLite format 3"
    await works(app)


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "serialize"), reason="Python 3.11 has it")
async def test_deserialize_is_as_on_stock_or_refused(door: Door) -> None:
    """A connection whose database was replaced by one in memory is not lent again."""
    with closing(sqlite3.connect(":memory:")) as source:
        source.execute("CREATE TABLE loaded (x)")
        source.execute("INSERT INTO loaded VALUES (1)")
        source.commit()
        data = source.serialize()  # type: ignore[attr-defined]
    app = await door.open()
    await works(app)
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        try:
            await raw._execute(raw._conn.deserialize, data)
        except sqlite3.Error:
            assert not door.stock
        else:
            asked = await connection.execute(text("SELECT count(*) FROM loaded"))
            assert asked.scalar_one() == 1
        await connection.rollback()
    if door.stock:
        return  # which lends it to the next
    await app.write("INSERT INTO t VALUES (2)")
    with outside(app.path) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (2,)
