"""The raw connection, requested while a statement of another task runs on it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool.driver import adapter
from sa_sqlite_pool.driver.executor import Executor
from sa_sqlite_pool.driver.raw_connection import take_back
from tests.children import Child, needs_fork_server
from tests.conftest import MakeEngine
from tests.doors.raw_programs import registers_beside_a_statement
from tests.helpers import ENDLESS, UPDATE_FIRST, SleepingFunction, amounts, create_items, until

SLEEP = text("SELECT sleep()")

pytestmark = pytest.mark.needs_thread


@pytest.mark.parametrize("opened_by", ["the package", "the application"])
async def test_it_is_part_of_the_transaction(
    path: Path, make_engine: MakeEngine, opened_by: str
) -> None:
    """Its statements wait for the running one, begin a transaction, and are rolled back."""
    function = SleepingFunction()
    options: dict[str, Any] = {"on_connect": function.on_connect}
    if opened_by == "the application":
        options["async_creator"] = lambda: aiosqlite.connect(path)
    engine = make_engine(SQLitePool, **options)
    await create_items(engine)
    async with engine.connect() as connection:
        proxied = await connection.get_raw_connection()
        sleeping = asyncio.create_task(connection.execute(SLEEP))
        await until(function.inside.is_set)
        raw = proxied.driver_connection
        assert raw is not None
        updating = asyncio.create_task(raw.execute(UPDATE_FIRST.text))
        for _ in range(10):
            await asyncio.sleep(0)
        function.leave.set()
        await asyncio.gather(sleeping, updating)
        await connection.rollback()
    assert await amounts(engine) == [0, 0, 0]


async def test_no_other_task_gets_it(make_engine: MakeEngine) -> None:
    """The statement is cancelled while the application still has the raw connection."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        proxied = await connection.get_raw_connection()
        running = asyncio.create_task(connection.execute(ENDLESS))
        worker: Any = proxied.dbapi_connection.worker  # type: ignore[union-attr]
        await until(lambda: not worker.at_rest)
        raw = proxied.driver_connection
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    async with engine.connect() as connection:
        assert (await connection.get_raw_connection()).driver_connection is not raw


async def test_closing_stops_the_statement(path: Path) -> None:
    """This happens although the thread of the raw connection waits for the statement."""
    db = SQLiteDatabase(path, readers=1)
    await db.open()
    async with db.reader_engine.connect() as connection:
        proxied = await connection.get_raw_connection()
        running = asyncio.create_task(connection.execute(ENDLESS))
        worker: Any = proxied.dbapi_connection.worker  # type: ignore[union-attr]
        await until(lambda: not worker.at_rest)
        assert proxied.driver_connection is not None
        await asyncio.wait_for(db.close(0), 10)
        await asyncio.wait([running], timeout=10)
        assert running.done()
        assert running.exception() is not None


@needs_fork_server
def test_a_function_that_is_registered_there_stops_nobody(path: Path) -> None:
    """SQLite would wait for the statement while holding the interpreter lock that it needs."""
    with Child(registers_beside_a_statement, path) as child:
        assert child.hear() == 7


async def test_given_back_while_it_is_closed(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is not returned to the pool, and no error or message results."""
    engine = make_engine(SQLitePool)
    pool: Any = engine.pool

    def recalled_before(executor: Executor) -> None:
        pool.recall("it was recalled")
        take_back(executor)

    monkeypatch.setattr(adapter, "take_back", recalled_before)
    async with engine.connect() as connection:
        assert (await connection.get_raw_connection()).driver_connection is not None
    assert not caplog.records
    await until(lambda: len(pool.checkouts) == 0)
