"""SQLite is not queried about a connection while another thread uses it.

Since 3.53, it waits for that thread while ``sqlite3`` holds the interpreter lock, which the
thread needs if a statement calls anything in Python: the authorizer, which is always set, or a
function. The process would hang for ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, SleepingFunction, amounts, create_items, driver, until

pytestmark = pytest.mark.needs_thread

SLEEP = "SELECT sleep()"


class Asked(sqlite3.Connection):
    """A connection that records queries made while ``sleep()`` runs in another thread."""

    function = SleepingFunction()
    wrongly: list[str] = []  # noqa: RUF012 - one test after the other

    @classmethod
    def begin_anew(cls) -> None:
        cls.function, cls.wrongly = SleepingFunction(), []

    def __getattribute__(self, name: str) -> Any:
        if name in {"in_transaction", "total_changes", "isolation_level"}:
            function = type(self).function
            if function.inside.is_set() and not function.leave.is_set():
                type(self).wrongly.append(f"{name} in {threading.current_thread().name}")
                return None
        return super().__getattribute__(name)


@pytest.fixture
def engine(make_engine: MakeEngine) -> AsyncEngine:
    Asked.begin_anew()
    return make_engine(
        SQLitePool, connect_args={"factory": Asked}, on_connect=Asked.function.on_connect
    )


async def sleeping(work: Any) -> asyncio.Task[Any]:
    """Return a task that executes ``sleep()``, once the function is running."""
    task: asyncio.Task[Any] = asyncio.ensure_future(work)
    await until(Asked.function.inside.is_set)
    return task


async def ask(connection: AsyncConnection) -> bool:
    """Query everything that may be queried about a connection at any time."""
    raw = await driver(connection)
    pool: Any = connection.engine.pool
    pool._idle_watch.look()
    repr(raw)
    raw.worker.statistics()
    pool.describe_holders()
    return raw.in_transaction


async def test_while_a_statement_runs(engine: AsyncEngine) -> None:
    """The answer is the one from before the statement."""
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        task = await sleeping(connection.execute(text(SLEEP)))
        is_open = await ask(connection)
        Asked.function.leave.set()
        await task
        assert is_open
        assert await ask(connection)
        await connection.commit()
        assert not await ask(connection)
    assert not Asked.wrongly


async def test_an_end_beside_a_statement_comes_after_it(engine: AsyncEngine) -> None:
    """COMMIT follows the statement, although the transaction that it begins was not yet open."""
    await create_items(engine)
    async with engine.connect() as connection:
        update = text("UPDATE items SET amount = sleep() WHERE id = 1")
        task = await sleeping(connection.execute(update))
        ending = asyncio.create_task(connection.commit())
        for _ in range(10):
            await asyncio.sleep(0)
        Asked.function.leave.set()
        await asyncio.gather(task, ending)
    assert await amounts(engine) == [1, 0, 0]
    assert not Asked.wrongly


async def test_while_a_chunk_of_a_stream_is_fetched(engine: AsyncEngine) -> None:
    """The answer needs no query, and the transaction does not count as idle meanwhile."""
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT "
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        stream = await connection.stream(
            text(f"{rows} CASE i WHEN 400 THEN sleep() ELSE 0 END FROM n")
        )
        checkout = (await driver(connection)).executor.transaction.permit
        assert checkout is not None
        assert checkout.idle_since is not None
        task = await sleeping(stream.all())
        idle_since, is_open = checkout.idle_since, await ask(connection)
        Asked.function.leave.set()
        assert len(await task) == 500
    assert idle_since is None
    assert is_open
    assert not Asked.wrongly


@pytest.mark.parametrize("cancelled", [False, True])
async def test_while_the_application_uses_the_raw_connection(
    engine: AsyncEngine, cancelled: bool
) -> None:
    """Later statements wait in the connection's thread until the raw statement has ended."""
    await create_items(engine)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        task = await sleeping(raw.execute_fetchall(SLEEP))
        if cancelled:  # aiosqlite's call ends; its statement continues
            task.cancel()
            await asyncio.wait([task])
        await ask(connection)
        going_on = asyncio.create_task(connection.execute(UPDATE_FIRST))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not going_on.done()
        assert not Asked.wrongly
        Asked.function.leave.set()
        await going_on
        await connection.commit()
    assert await amounts(engine) == [1, 0, 0]


End = Callable[[AsyncConnection], Any]


@pytest.mark.parametrize(
    ("end", "kept"),
    [(AsyncConnection.commit, 1), (AsyncConnection.rollback, 0)],
    ids=["commit", "rollback"],
)
@pytest.mark.parametrize("stock", [True, False])
async def test_what_the_application_has_sent_is_ended(
    path: Path, engine: AsyncEngine, end: End, kept: int, stock: bool
) -> None:
    """The raw statement's transaction is ended, though it was unknown when the end was called."""
    await create_items(engine)
    beside = create_async_engine(f"sqlite+aiosqlite:///{path}") if stock else engine
    if stock:
        event.listen(
            beside.sync_engine,
            "connect",
            lambda one, _: one.create_function("sleep", 0, Asked.function._sleep),
        )
    async with beside.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await connection.execute(text("SELECT 1"))
        task = await sleeping(raw.execute("UPDATE items SET amount = sleep() WHERE id = 1"))
        ending = asyncio.create_task(end(connection))
        for _ in range(10):
            await asyncio.sleep(0)
        Asked.function.leave.set()
        await asyncio.gather(task, ending)
    assert (await amounts(engine))[0] == kept
    if stock:
        await beside.dispose()
    assert not Asked.wrongly
