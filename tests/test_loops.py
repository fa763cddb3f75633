"""Several event loops: consecutive, concurrent, and closed ones."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.system.loop_state import of_running_loop
from tests.conftest import MakeEngine
from tests.dead_loops import bury, die, wait_for_ever
from tests.helpers import ENDLESS, UPDATE_FIRST, amounts, create_items, turn_of

Hold = Callable[[SQLiteDatabase, threading.Event], Coroutine[Any, Any, None]]


def engine_on(path: Path, poolclass: type, **options: Any) -> AsyncEngine:
    return create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=poolclass, **options)


async def write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
def test_an_engine_goes_on_in_the_next_loop(path: Path, poolclass: type) -> None:
    """Across several calls of asyncio.run(), the connection stays open and warm."""
    opened: list[sqlite3.Connection] = []
    engine = engine_on(path, poolclass, on_connect=opened.append)
    asyncio.run(create_items(engine))
    for _ in range(3):
        asyncio.run(write(engine))
    assert asyncio.run(amounts(engine)) == [3, 0, 0]
    assert len(opened) == 1
    asyncio.run(engine.dispose())


def test_the_facade_goes_on_in_the_next_loop(path: Path) -> None:
    """It is opened in one loop, used in others, and closed in yet another."""
    db = SQLiteDatabase(path)

    async def use() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
        async with db.read() as session:
            await session.execute(text("SELECT 1"))

    async def set_up() -> None:
        await db.open()
        await create_items(db.writer_engine)

    asyncio.run(set_up())
    for _ in range(3):
        asyncio.run(use())
    assert asyncio.run(amounts(db.reader_engine)) == [3, 0, 0]
    asyncio.run(db.close())


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
def test_a_connection_goes_on_in_the_next_loop(path: Path, poolclass: type) -> None:
    """This includes a connection that was checked out in a loop that is closed now."""
    engine = engine_on(path, poolclass)
    asyncio.run(create_items(engine))
    read = text("SELECT amount FROM items WHERE id = 1")

    async def check_out() -> AsyncConnection:
        connection = await engine.connect()
        for _ in range(3):
            assert await connection.scalar(read) == 0
        return connection

    async def go_on(connection: AsyncConnection) -> None:
        for _ in range(3):
            assert await connection.scalar(read) == 0
        await connection.close()

    asyncio.run(go_on(asyncio.run(check_out())))
    asyncio.run(engine.dispose())


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
def test_a_writer_whose_loop_died_does_not_keep_the_turn(path: Path, poolclass: type) -> None:
    """The next writer recalls it; the transaction is rolled back, and the connection reused."""
    opened: list[sqlite3.Connection] = []
    engine = engine_on(path, poolclass, on_connect=opened.append, write_timeout=10)
    asyncio.run(create_items(engine))

    async def main() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            await wait_for_ever()

    dead = die(main)
    assert turn_of(path).holder is not None

    async def after() -> None:
        await write(engine)
        assert await amounts(engine) == [1, 0, 0]

    asyncio.run(after())
    assert len(opened) <= 2
    bury(dead)
    asyncio.run(write(engine))
    assert asyncio.run(amounts(engine)) == [2, 0, 0]
    asyncio.run(engine.dispose())


@pytest.mark.needs_thread
def test_readers_whose_loop_died_do_not_fill_the_pool(path: Path) -> None:
    """All readers were lent when the loop was closed, one in the middle of a statement."""
    asyncio.run(create_items(writer := engine_on(path, WriterPool)))
    engine = engine_on(path, ReaderPool, pool_size=2, pool_timeout=10)

    async def main() -> None:
        async with engine.connect() as first, engine.connect() as second:
            await first.execute(text("SELECT 1"))
            running = asyncio.create_task(second.execute(ENDLESS))
            children.append(running)  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await wait_for_ever()

    children: list[asyncio.Task[None]] = []
    dead = die(main)
    for _ in range(3):
        assert asyncio.run(amounts(engine)) == [0, 0, 0]
    for task in (dead, *children):
        bury(task)
    assert asyncio.run(amounts(engine)) == [0, 0, 0]
    asyncio.run(engine.dispose())
    asyncio.run(writer.dispose())


async def hold_writer(db: SQLiteDatabase, _: threading.Event) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        await wait_for_ever()


async def hold_reader(db: SQLiteDatabase, _: threading.Event) -> None:
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        await wait_for_ever()


async def leave_function(db: SQLiteDatabase, leave: threading.Event) -> None:
    entered = threading.Event()

    def function(_: Connection) -> None:
        entered.set()
        leave.wait(10)

    running = asyncio.ensure_future(db.run_read_core(function))
    while not entered.is_set():
        await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await wait_for_ever()


@pytest.mark.parametrize("hold", [hold_writer, hold_reader, leave_function])
def test_closing_does_not_wait_for_a_loop_that_died(path: Path, hold: Hold) -> None:
    """Its tasks will return nothing, not even when they are freed."""
    close_beside_dead_loop(path, hold)
    assert stored(path) == [0, 0, 0]
    gc.collect()  # within the test, whose warnings are errors


def close_beside_dead_loop(path: Path, hold: Hold) -> None:
    db = SQLiteDatabase(path, close_timeout=60)
    leave = threading.Event()

    async def open_it() -> None:
        await db.open()
        await create_items(db.writer_engine)

    asyncio.run(open_it())
    dead = die(lambda: hold(db, leave))
    leave.set()
    asyncio.run(asyncio.wait_for(db.close(), 10))
    bury(dead)


def stored(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT amount FROM items ORDER BY id").fetchall()
    return [amount for (amount,) in rows]


def test_a_permit_handed_to_a_loop_that_dies_is_passed_on(path: Path) -> None:
    """The loop is closed after the permit was passed, and before the waiter ran."""
    turn = turn_of(path)
    permits = []

    async def hold() -> None:
        permits.append(await turn.acquire(1))

    holding = asyncio.new_event_loop()
    holding.run_until_complete(hold())
    waiting = asyncio.new_event_loop()
    task = waiting.create_task(hold())

    async def until_in_line() -> None:
        while turn.waiting == 0:
            await asyncio.sleep(0)

    waiting.run_until_complete(until_in_line())
    turn.release(permits.pop())
    waiting.close()
    holding.close()
    asyncio.run(asyncio.wait_for(hold(), 10))
    bury(task)


async def test_a_loop_counts_its_own_work(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even if another thread's loop has used the engine meanwhile."""
    engine = make_engine(SQLitePool)
    begun: list[LoopBudget] = []
    ended: list[LoopBudget] = []
    monkeypatch.setattr(LoopBudget, "begin_work", lambda budget, _: begun.append(budget))
    monkeypatch.setattr(LoopBudget, "end_work", lambda budget, _: ended.append(budget))

    async def use() -> None:
        async with engine.connect():
            pass

    async with engine.connect():
        other = threading.Thread(target=lambda: asyncio.run(use()))
        other.start()
        other.join()
    own, others = begun
    assert own is of_running_loop(LoopBudget)
    assert ended == [others, own]


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
def test_loops_in_several_threads_share_an_engine(path: Path, poolclass: type) -> None:
    """They use it at the same time, from the first connection on, and no update is lost."""
    asyncio.run(create_items(stock := create_async_engine(f"sqlite+aiosqlite:///{path}")))
    asyncio.run(stock.dispose())
    engine = engine_on(path, poolclass)
    barrier = threading.Barrier(4)

    async def main() -> None:
        barrier.wait(10)
        for _ in range(50):
            await asyncio.gather(write(engine), amounts(engine))

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(lambda: asyncio.run(main())) for _ in range(4)]:
            done.result(60)
    assert asyncio.run(amounts(engine)) == [200, 0, 0]
    asyncio.run(engine.dispose())
