"""A connection that is kept after a cancellation is lent again as if it were newly opened."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.turns import outcome, turn_taken
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    SleepingFunction,
    create_items,
    driver,
    until,
    until_free,
)

pytestmark = pytest.mark.needs_thread

ONE = {"pool_size": 1, "max_overflow": 0}


class House:
    """An engine with one connection, which counts how often SQLite has opened it."""

    def __init__(
        self,
        make_engine: MakeEngine,
        path: Path,
        poolclass: type = SQLitePool,
        on_connect: Callable[[sqlite3.Connection], None] = lambda _: None,
    ) -> None:
        self.path = path
        self.opened: list[sqlite3.Connection] = []

        def opened(connection: sqlite3.Connection) -> None:
            self.opened.append(connection)
            on_connect(connection)

        self.engine = make_engine(poolclass, on_connect=opened, **ONE)

    async def cancel(self, connection: AsyncConnection) -> None:
        """Cancel a statement while it runs, upon which SQLAlchemy discards the connection."""
        raw = await driver(connection)
        task = asyncio.create_task(connection.execute(ENDLESS))
        await until(lambda: not raw.worker.at_rest)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def come_to_rest(self) -> None:
        await until(lambda: len(self.engine.pool.checkouts) == 0)  # type: ignore[attr-defined]
        await until_free(self.path)

    async def after(
        self, *statements: str, role: str = "auto", then: str = "auto"
    ) -> AsyncConnection:
        """Return a new checkout, after one that executed ``statements`` and was cancelled."""
        async with self.engine.execution_options(sqlite_role=role).connect() as connection:
            for sql in statements:
                await connection.execute(text(sql))
            await self.cancel(connection)
        await self.come_to_rest()
        return self.engine.execution_options(sqlite_role=then).connect()


@pytest.fixture
async def house(make_engine: MakeEngine, path: Path) -> House:
    await create_items(make_engine(WriterPool))
    return House(make_engine, path)


@pytest.mark.parametrize(
    ("statements", "ask", "expected", "opened"),
    [
        (["SELECT * FROM items"], "SELECT 1", [(1,)], 1),
        (["CREATE TEMP TABLE t (i)"], "CREATE TEMP TABLE t (i)", None, 2),
        (["CREATE TABLE temp.t (i)"], "SELECT * FROM t", "no such table: t", 2),
        (["BEGIN", "CREATE TEMP TABLE t (i)"], "SELECT * FROM t", "no such table: t", 2),
        (["ATTACH ':memory:' AS a"], "ATTACH ':memory:' AS a", None, 2),
        (["PRAGMA foreign_keys = ON"], "PRAGMA foreign_keys", [(0,)], 2),
        (["PRAGMA query_only = 1"], str(UPDATE_FIRST), None, 2),
        (["PRAGMA busy_timeout = 7"], "PRAGMA busy_timeout", [(30_000,)], 2),
        (["SAVEPOINT a"], "RELEASE a", "no such savepoint: a", 1),
        (["SAVEPOINT a", str(UPDATE_FIRST)], "RELEASE a", "no such savepoint: a", 1),
        (["BEGIN"], "BEGIN", None, 1),
    ],
)
async def test_nothing_is_left_of_the_loan_before(
    house: House, statements: list[str], ask: str, expected: Any, opened: int
) -> None:
    """If something cannot be undone, another connection is opened instead."""
    async with await house.after(*statements) as connection:
        assert await outcome(connection, ask) == expected
        await connection.rollback()
    assert len(house.opened) == opened


ROLES = ["auto", "reader", "writer"]


@pytest.mark.parametrize("then", ROLES)
@pytest.mark.parametrize("role", ROLES)
async def test_the_role_before_is_forgotten(house: House, role: str, then: str) -> None:
    """The kept connection is neither read-only nor writable because of its previous role."""
    async with await house.after("SELECT * FROM items", role=role, then=then) as connection:
        found = await outcome(connection, str(UPDATE_FIRST))
        assert (found is None) is (then != "reader")
        await connection.rollback()
        assert await outcome(connection, "PRAGMA query_only") == [(0,)]
    assert len(house.opened) == 1


async def test_what_was_known_of_statements_is_forgotten(
    house: House, make_engine: MakeEngine, path: Path
) -> None:
    """An example is a statement that acquired the turn because of a function that has gone."""
    write = ["INSERT INTO items (amount) VALUES (1)"]

    def on_connect(connection: sqlite3.Connection) -> None:
        def may_write() -> int:
            for sql in write:
                connection.execute(sql)
            return 1

        connection.create_function("may_write", 0, may_write)

    house = House(make_engine, path, on_connect=on_connect)
    async with await house.after("SELECT may_write()") as connection:
        write.clear()
        async with turn_taken(house.path) as asked:
            assert await outcome(connection, "SELECT may_write()") == [(1,)]
            assert asked() == 0
    assert len(house.opened) == 1


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool, ReaderPool])
@pytest.mark.parametrize(
    "set_up",
    [
        "ATTACH ':memory:' AS own",
        "CREATE TEMP TABLE own (i)",
        "PRAGMA busy_timeout = 77",
        "PRAGMA cache_size = -77",
    ],
)
async def test_listeners_run_again(
    make_engine: MakeEngine, path: Path, poolclass: type, set_up: str
) -> None:
    """``connect`` listeners do not find the results of their earlier call."""
    await create_items(make_engine(WriterPool))
    house = House(make_engine, path, poolclass)

    @event.listens_for(house.engine.sync_engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(set_up)
        cursor.close()

    for _ in range(2):
        async with house.engine.connect() as connection:
            await connection.execute(text("SELECT * FROM items"))
            await house.cancel(connection)
        await house.come_to_rest()
    asks: dict[str, tuple[str, Any]] = {
        "PRAGMA busy_timeout = 77": ("PRAGMA busy_timeout", [(77,)]),
        "PRAGMA cache_size = -77": ("PRAGMA cache_size", [(-77,)]),
    }
    ask, expected = asks.get(set_up, ("SELECT 1", [(1,)]))
    async with house.engine.connect() as connection:
        assert await outcome(connection, ask) == expected


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool])
@pytest.mark.parametrize(
    "lose",
    ["cancel", "invalidate", "recall"],
)
async def test_a_reader_is_one_again(
    make_engine: MakeEngine, path: Path, poolclass: type, lose: str
) -> None:
    """However the connection was lost, it is read-only before anything runs on it."""
    await create_items(make_engine(WriterPool))
    house = House(make_engine, path, poolclass)
    engine: AsyncEngine = house.engine.execution_options(sqlite_role="reader")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE t (i)"))
        await connection.execute(text("INSERT INTO t VALUES (1)"))  # query_only is off
        if lose == "cancel":
            await house.cancel(connection)
        elif lose == "invalidate":
            await connection.invalidate()
        else:
            house.engine.pool.recall("it was taken back")  # type: ignore[attr-defined]
            with pytest.raises(Exception, match="taken back"):
                await connection.execute(text("SELECT 1"))
    await house.come_to_rest()
    async with engine.connect() as connection:
        assert "cannot change" in await outcome(connection, str(UPDATE_FIRST))


async def test_closed_while_it_is_given_up(make_engine: MakeEngine, path: Path) -> None:
    """The checkout ends when its thread has rolled back, not at a ``close()`` before that."""
    sleeping = SleepingFunction()
    house = House(make_engine, path, on_connect=sleeping.on_connect)
    async with house.engine.connect() as connection:
        raw = await driver(connection)
        gone = threading.Event()
        raw.checked_out(raw._transaction.permit, gone.set)
        task = asyncio.create_task(connection.execute(text("SELECT sleep()")))
        await until(sleeping.inside.is_set)
        raw.give_up("it was taken back", keep=True)
        await greenlet_spawn(raw.close)
        assert not gone.is_set()
        sleeping.leave.set()
        await until(gone.is_set)
        with pytest.raises(DBAPIError):
            await task
