"""Clean cancellation: at every await of every operation, through every door."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import (
    SQLitePool,
    WriteTimeout,
)
from sa_sqlite_pool.execution import jobs
from tests.cancelling import cancelled_at
from tests.conftest import MakeEngine
from tests.doors.cancelled_operations import (
    COUNT,
    OPERATIONS,
    House,
    facade_write,
    house,
    no_patience,
    swap_in_write,
    writer_savepoint,
)
from tests.execution.workers import Gate
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    SleepingFunction,
    amounts,
    create_items,
    driver,
    turn_of,
    until,
    until_free,
)

__all__ = ["house", "no_patience"]


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_at_every_await(
    house: House, operation: Callable[[House], Coroutine[Any, Any, None]], stubborn: bool
) -> None:
    """Nothing stays checked out or half done, and no connection is opened again."""
    opened, number = house.opened, 1
    while await cancelled_at(operation(house), number, stubborn):
        await house.come_to_rest()
        await house.assert_works()
        number += 1
    assert number > 1
    assert house.opened == opened


def is_done_or_waits(task: asyncio.Task[bool], path: Path) -> bool:
    return task.done() or turn_of(path).waiting > 0


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("operation", [swap_in_write, writer_savepoint, facade_write])
async def test_cancelled_at_every_await_while_others_wait(
    house: House, operation: Callable[[House], Coroutine[Any, Any, None]]
) -> None:
    """The operation is in line behind a writer, with writers behind it, which are all served."""
    opened, number, cancelled = house.opened, 1, True
    while cancelled:
        async with house.writer.begin() as connection:
            task = asyncio.create_task(cancelled_at(operation(house), number, stubborn=False))
            await until(partial(is_done_or_waits, task, house.path))
            others = [asyncio.create_task(facade_write(house)) for _ in range(2)]
            await house.pair(connection.execute)
        await asyncio.gather(*others)
        cancelled = await task
        await house.come_to_rest()
        number += 1
    await house.assert_works()
    assert house.opened == opened


async def cancel_a_statement(connection: AsyncConnection) -> None:
    """Cancel a statement while it runs, upon which SQLAlchemy discards the connection."""
    raw = await driver(connection)
    task = asyncio.create_task(connection.execute(ENDLESS))
    await until(lambda: not raw.worker.at_rest)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("door", ["swap_in", "writer"])
@pytest.mark.needs_thread
async def test_the_same_task_goes_on_after_a_time_out(house: House, door: str) -> None:
    """The turn is being released while a thread rolls back, which is no deadlock with itself."""
    engine: AsyncEngine = getattr(house, door)
    slow = text(
        "INSERT INTO items (amount) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    )
    for _ in range(5):
        with pytest.raises(asyncio.TimeoutError):
            async with engine.begin() as connection:
                await asyncio.wait_for(connection.execute(slow), 0.01)
        async with engine.begin() as connection:
            await house.pair(connection.execute)
    await house.assert_works()


@pytest.mark.needs_thread
async def test_who_waits_for_a_rollback_is_told(house: House) -> None:
    """Clear waits: the holder was cancelled, and its thread is rolling back."""
    async with house.swap_in.connect() as connection:
        await house.pair(connection.execute)
        raw = await driver(connection)
        gate = threading.Event()
        raw.worker.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
        await cancel_a_statement(connection)
        with pytest.raises(WriteTimeout, match="whose transaction is being rolled back"):
            await turn_of(house.path).acquire(0.02)
        gate.set()
    await house.come_to_rest()


@pytest.mark.needs_thread
async def test_a_connection_with_changed_settings_is_not_kept(house: House) -> None:
    """A cancelled migration had foreign keys off; the next transaction must have them on."""
    opened = house.opened
    async with house.writer.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await cancel_a_statement(connection)
    await house.come_to_rest()
    async with house.writer.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        await connection.execute(text("PRAGMA table_info(items)"))  # a query only
        await cancel_a_statement(connection)
    await house.come_to_rest()
    await house.assert_works()
    assert house.opened == opened + 1


@pytest.mark.needs_thread
async def test_a_connection_whose_raw_one_was_lent_is_not_kept(house: House) -> None:
    """The application may still be using the raw connection."""
    opened = house.opened
    async with house.swap_in.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await cancel_a_statement(connection)
    await house.come_to_rest()
    await until(lambda: raw._connection is None)
    await house.assert_works()
    assert house.opened == opened + 1


async def test_who_invalidates_a_connection_gets_another(house: House) -> None:
    """Only cancelled or lost connections are kept; ``invalidate()`` always discards one."""
    opened = house.opened
    async with house.swap_in.connect() as connection:
        await connection.execute(COUNT)
        await connection.invalidate()
    await house.come_to_rest()
    await house.assert_works()
    assert house.opened == opened + 1


@pytest.mark.needs_thread
async def test_the_turn_stays_with_a_thread_that_does_not_come_back(
    path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In AUTOCOMMIT, no transaction is visible while the thread is still writing."""
    monkeypatch.setattr(jobs, "_LET_GO_SECONDS", 0.02)
    function = SleepingFunction()
    engine = make_engine(SQLitePool, on_connect=function.on_connect)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        write = text("UPDATE items SET amount = sleep() WHERE id = 1")
        task = asyncio.create_task(connection.execute(write))
        await until(function.inside.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert turn_of(path).holder is not None
    assert turn_of(path).holder is not None
    function.leave.set()
    await until_free(path)


@pytest.mark.needs_thread
async def test_a_place_whose_connection_is_on_its_way_is_lent_last(
    path: Path, make_engine: MakeEngine
) -> None:
    """While a thread rolls back, connections at rest are used, and no further one is opened."""
    opened: list[sqlite3.Connection] = []
    engine = make_engine(SQLitePool, pool_size=2, max_overflow=0, on_connect=opened.append)
    await create_items(engine)
    gate = threading.Event()
    async with engine.connect() as connection, engine.connect() as other:
        await connection.execute(UPDATE_FIRST)
        raw = await driver(connection)
        await other.close()
        raw.worker.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
        await cancel_a_statement(connection)
    for _ in range(3):
        assert await amounts(engine) == [0, 0, 0]
    gate.set()
    await until_free(path)
    async with engine.connect(), engine.connect():
        pass
    assert len(opened) == 2


async def test_a_cancelled_opening_leaves_nothing(make_engine: MakeEngine) -> None:
    """Neither an open file nor a thread that reports to a possibly closed loop is left behind."""
    gate, opened = Gate(), []

    class SlowToOpen(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            gate(self)
            super().__init__(*arguments, **options)
            opened.append(self)

    engine = make_engine(SQLitePool, connect_args={"factory": SlowToOpen})
    before = set(threading.enumerate())
    connecting = asyncio.ensure_future(engine.connect())
    await gate.reached.wait()
    connecting.cancel()
    await asyncio.wait([connecting], timeout=0)
    assert not connecting.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        opened[0].execute("SELECT 1")
    await until(lambda: set(threading.enumerate()) <= before)
