"""Connections stay open and warm: caches, prepared statements, temp tables."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool
from sa_sqlite_pool.pools.resting import KeptConnections
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, driver


async def test_on_connect_runs_once_a_connection(make_engine: MakeEngine) -> None:
    """Functions, collations, temp tables and triggers, created once, survive every checkout."""
    opened: list[int] = []

    def on_connect(connection: sqlite3.Connection) -> None:
        opened.append(1)
        connection.create_collation("by_length", lambda a, b: len(a) - len(b))
        connection.execute("CREATE TEMP TABLE recent (id)")
        connection.execute("CREATE TEMP TABLE log (id)")
        connection.execute(
            "CREATE TEMP TRIGGER t AFTER INSERT ON recent "
            "BEGIN INSERT INTO log VALUES (new.id); END"
        )

    engine = make_engine(SQLitePool, on_connect=on_connect)
    for number in range(3):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO recent VALUES (:n)"), {"n": number})
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM log"))).scalar_one() == 3
        longest = text("SELECT column1 FROM (VALUES ('aa'), ('b')) ORDER BY 1 COLLATE by_length")
        assert list(await connection.scalars(longest)) == ["b", "aa"]
    assert opened == [1]


async def test_on_connect_may_make_temp_tables_on_readers(
    writer: AsyncEngine, make_engine: MakeEngine
) -> None:
    """The hook runs before the authorizer is set, and still cannot write to the file."""
    await create_items(writer)
    refused: list[str] = []

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TEMP TABLE scratch AS SELECT * FROM items")
        try:
            connection.execute("DELETE FROM items")
        except sqlite3.OperationalError as error:
            refused.append(str(error))

    reader = make_engine(ReaderPool, on_connect=on_connect)
    async with reader.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM scratch"))).scalar_one() == 3
    assert refused == ["attempt to write a readonly database"]


async def test_the_connection_used_last_is_lent_first(swap_in: AsyncEngine) -> None:
    """Checkouts are LIFO, so the warmest cache comes first."""
    async with swap_in.connect() as first, swap_in.connect() as second:
        cold, hot = await driver(first), await driver(second)
        await first.close()
    async with swap_in.connect() as connection:
        assert await driver(connection) is hot
        async with swap_in.connect() as other:
            assert await driver(other) is cold


async def test_texts_stay_prepared(swap_in: AsyncEngine) -> None:
    """A text is compiled once per connection: the authorizer is called once, not at each use."""
    await create_items(swap_in)
    asked: list[int] = []
    async with swap_in.connect() as connection:
        raw = await driver(connection)

        def count(action: int, *_: Any) -> int:
            asked.append(action)
            return sqlite3.SQLITE_OK

        raw.worker.connection.set_authorizer(count)

    async def use() -> int:
        async with swap_in.begin() as connection:
            await connection.execute(text("SELECT id FROM items"))
            await connection.execute(UPDATE_FIRST)
            await connection.execute(text("SELECT amount FROM items"))
        return len(asked)

    after_first = await use()
    assert after_first > 0
    assert [await use(), await use()] == [after_first, after_first]


async def test_dispose_and_use_again(swap_in: AsyncEngine) -> None:
    """engine.dispose() closes the connections; the engine opens others on demand."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        before = await driver(connection)
    await swap_in.dispose()
    assert before.worker.closed
    assert isinstance(swap_in.pool, SQLitePool)
    assert await amounts(swap_in) == [0, 0, 0]
    async with swap_in.connect() as connection:
        assert await driver(connection) is not before


async def test_connections_of_the_overflow_stay_open(make_engine: MakeEngine) -> None:
    """QueuePool closes them on return, so a load just above pool_size would keep reopening them."""
    opened: list[int] = []
    engine = make_engine(
        SQLitePool, pool_size=1, max_overflow=2, on_connect=lambda _: opened.append(1)
    )
    for _ in range(5):
        async with engine.connect(), engine.connect(), engine.connect():
            assert engine.pool.checkedout() == 3  # type: ignore[attr-defined]
    assert opened == [1, 1, 1]
    assert engine.pool.checkedin() == 3  # type: ignore[attr-defined]


async def test_one_that_cannot_be_closed_keeps_no_other_open(make_engine: MakeEngine) -> None:
    """An example is a tracer's connection, which may raise anything, before a fork."""
    closed: list[sqlite3.Connection] = []

    class Traced(sqlite3.Connection):
        def close(self) -> None:
            closed.append(self)
            super().close()
            if len(closed) < 3:
                raise RuntimeError("the tracer has gone")

    engine = make_engine(SQLitePool, pool_size=3, connect_args={"factory": Traced})
    connections = [await engine.connect() for _ in range(3)]
    workers = [(await driver(connection)).worker for connection in connections]
    for connection in connections:
        await connection.close()
    pool: Any = engine.pool
    with pytest.raises(RuntimeError, match="the tracer has gone"):
        pool.close_at_rest()
    assert len(closed) == pool.checkedin() == 3
    for _ in range(3):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    assert pool.checkedout() == 0
    assert not any(worker.aiosqlite_connection._running for worker in workers)


async def test_one_that_is_kept_and_cannot_be_closed_keeps_no_other_open() -> None:
    """The same applies to connections whose records SQLAlchemy has discarded."""
    closed: list[int] = []

    class Worker:
        def close_before_fork(self) -> None:
            closed.append(1)
            if len(closed) == 1:
                raise RuntimeError("the tracer has gone")

    kept, worker = KeptConnections(), Worker()
    for _ in range(3):
        kept.add(worker, None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the tracer has gone"):
        kept.close_before_fork()
    assert len(closed) == 3
