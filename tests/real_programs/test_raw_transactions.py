"""What an application writes on aiosqlite's connection itself is a transaction."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .doors import Application, Door, at_once, is_locked

INSERT = "INSERT INTO t VALUES (?)"


async def raw_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


def touch_raw(engine: AsyncEngine) -> None:
    """A listener that works on the raw connection, as those that load extensions do."""

    @event.listens_for(engine.sync_engine, "connect")
    def connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.run_async(lambda raw: raw.execute("PRAGMA cache_size"))


@pytest.fixture(params=[None, touch_raw], ids=["", "listener"])
async def app(request: pytest.FixtureRequest, door: Door) -> Application:
    app = await door.open(listen=request.param)
    await app.write("CREATE TABLE t (x PRIMARY KEY)")
    return app


async def test_rollback(app: Application) -> None:
    """rollback() of the raw connection undoes, commit() keeps."""
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await raw.executemany(INSERT, [(1,), (2,)])
        assert raw.in_transaction
        await raw.rollback()
        await raw.execute(INSERT, (3,))
        await raw.commit()
    assert await app.rows("SELECT x FROM t") == [(3,)]


async def test_not_committed(app: Application) -> None:
    """What is not committed is undone when the connection goes back."""
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await raw.execute(INSERT, (1,))
    assert await app.rows("SELECT x FROM t") == []
    assert not is_locked(app.path)


async def test_beside_sqlalchemy(app: Application) -> None:
    """It is one transaction with what SQLAlchemy executes, before and after."""
    async with app.writer.connect() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))
        raw = await raw_of(connection)
        await raw.execute(INSERT, (2,))
        await connection.execute(text("INSERT INTO t VALUES (3)"))
        await connection.rollback()
        await raw.execute(INSERT, (4,))
        await connection.execute(text("INSERT INTO t VALUES (5)"))
        await connection.execute(text("INSERT INTO t VALUES (6)"))
        await connection.commit()
    assert await app.rows("SELECT x FROM t ORDER BY x") == [(4,), (5,), (6,)]


async def test_autocommit(app: Application) -> None:
    """In AUTOCOMMIT it is committed at once, also where that is set later."""
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await raw.execute(INSERT, (1,))
        await connection.execute(text("INSERT INTO t VALUES (2)"))
    async with app.writer.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        raw = await raw_of(connection)
        await raw.execute(INSERT, (3,))
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await raw.execute(INSERT, (4,))
    assert await app.rows("SELECT x FROM t ORDER BY x") == [(1,), (2,), (3,)]


async def test_a_level_of_its_own(app: Application) -> None:
    """isolation_level = None on the raw connection itself stays."""
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        raw.isolation_level = None
        await raw.execute(INSERT, (1,))
        await raw.rollback()
        raw.isolation_level = ""
        await raw.execute(INSERT, (2,))
        await raw.rollback()
    assert await app.rows("SELECT x FROM t") == [(1,)]


async def test_beside_another_writer(app: Application) -> None:
    """SQLite's lock, which it has, and the turn of another task do not wait for one another."""
    began = asyncio.Event()

    async def other() -> None:
        await began.wait()
        async with app.transaction() as session:
            await session.execute(text("INSERT INTO t VALUES (9)"))

    task = asyncio.ensure_future(other())
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await raw.execute(INSERT, (1,))
        began.set()
        await asyncio.sleep(0.1)  # the other takes the turn, where this has none, and waits
        await at_once(connection.execute(text("INSERT INTO t VALUES (2)")))
        await connection.commit()
    await task
    assert await app.rows("SELECT x FROM t ORDER BY x") == [(1,), (2,), (9,)]
