"""close() returns in bounded time, whatever is in progress; and dispose() beside returns."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, SAWarning

from sa_sqlite_pool import (
    ConfigurationError,
    DatabaseClosedError,
    SQLiteDatabase,
    WriterPool,
    life_cycle,
)
from sa_sqlite_pool import database as facade
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    SleepingFunction,
    create_items,
    driver,
    end_beside_a_lost_stream,
    files_beside,
    read,
    turn_of,
    until,
    write,
)


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    db = SQLiteDatabase(path, readers=1)
    await db.open()
    await create_items(db.writer_engine)
    yield db
    await db.close(0)


async def stored(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT amount FROM items ORDER BY id").fetchall()
    connection.close()
    return [amount for (amount,) in rows]


async def test_running_work_is_finished(db: SQLiteDatabase, path: Path) -> None:
    """Work that ends within the time that close() gives it is committed."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    threads: list[threading.Thread] = []

    async def work() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            raw = await driver(await session.connection())
            threads.append(raw.worker.aiosqlite_connection._thread)
            entered.set()
            await go_on.wait()
            await session.execute(UPDATE_FIRST)

    task = asyncio.create_task(work())
    await entered.wait()
    closing = asyncio.create_task(db.close(60))
    await until(lambda: "closing" in repr(db))
    go_on.set()
    await asyncio.gather(task, closing)
    assert await stored(path) == [2, 0, 0]
    assert files_beside(path) == {"app.db"}
    await until(lambda: not any(thread.is_alive() for thread in threads))


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.needs_thread
async def test_running_statements_are_stopped(
    db: SQLiteDatabase, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statements that outlast that time are interrupted, and their tasks get an error."""
    monkeypatch.setattr(facade, "HURRY_SECONDS", 20.0)  # a busy machine is slow
    started = asyncio.Event()

    async def work() -> None:
        async with getattr(db, kind)() as session:
            if kind == "write":
                await session.execute(UPDATE_FIRST)
            started.set()
            await session.execute(ENDLESS)

    task = asyncio.create_task(work())
    await started.wait()
    await asyncio.wait_for(db.close(0.02), 10)
    with pytest.raises(OperationalError, match=r"interrupted|no active connection"):
        await task
    assert await stored(path) == [0, 0, 0]
    await until(lambda: files_beside(path) == {"app.db"})  # the last connection is closing


async def test_an_idle_transaction_is_rolled_back(db: SQLiteDatabase, path: Path) -> None:
    """Its later commit fails, and the error says that the database was closed."""
    async with db.sessionmaker(role="writer") as session:
        await session.execute(UPDATE_FIRST)
        await db.close(0)
        with pytest.raises(DBAPIError, match=r"no active connection: app\.db was closed"):
            await session.commit()
        assert await stored(path) == [0, 0, 0]


@pytest.mark.filterwarnings("ignore:The garbage collector:sqlalchemy.exc.SAWarning")
async def test_a_stream_that_lost_its_client_is_not_waited_for(db: SQLiteDatabase) -> None:
    """The garbage collector finds it, and its connection is returned."""
    await end_beside_a_lost_stream(db.read, text("SELECT amount FROM items"), lambda: db.close(60))


async def test_waiters_are_sent_away(db: SQLiteDatabase, path: Path) -> None:
    """Waiting tasks get the error at once; another engine's writer keeps its turn."""
    turn = turn_of(path)
    permit = await turn.acquire(1)
    writing = [asyncio.create_task(write(db)) for _ in range(2)]
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        reading = asyncio.create_task(read(db))
        await until(lambda: turn.waiting == 2 and db.reader_engine.pool.waiting == 1)  # type: ignore[attr-defined]
        closing = asyncio.create_task(db.close(60))
        for task in (*writing, reading):
            with pytest.raises(DatabaseClosedError, match=r"app\.db is being closed"):
                await task
    await closing
    assert turn.holder is permit
    turn.release(permit)


async def test_closing_against_a_checkout(db: SQLiteDatabase) -> None:
    """A waiter that is served just before the closing is refused, and returns its permit.

    Holder      | Waiter                 | Closer
    gives back  | (woken, not run yet)   |
                |                        | refuse()
                | runs, and is refused   |
    """
    pool = db.reader_engine.pool
    assert isinstance(pool, FairPool)
    async with db.reader_engine.connect():
        waiter = asyncio.create_task(read(db))
        await until(lambda: pool.waiting == 1)
        (checkout,) = pool.checkouts
        pool._line.release(checkout.permit)
        pool.refuse(lambda: DatabaseClosedError("closed"))
        with pytest.raises(DatabaseClosedError):
            await waiter
    assert len(pool.checkouts) == 0
    assert pool._line.permits == []


async def test_closing_against_a_task_that_lets_others_go_on(
    db: SQLiteDatabase, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that joins the line after all waiters were sent away is refused there.

    It does not have to wait for the turn, which another engine holds.
    """
    outside, room = asyncio.Event(), asyncio.Event()

    async def enter(_: LoopBudget) -> float:
        outside.set()
        await room.wait()
        return 0.0

    pool = db.writer_engine.pool
    assert isinstance(pool, FairPool)
    async with make_engine(WriterPool).connect():
        monkeypatch.setattr(LoopBudget, "enter_nowait", lambda _: False)
        monkeypatch.setattr(LoopBudget, "enter", enter)
        waiter = asyncio.create_task(write(db))
        await outside.wait()
        pool.refuse(lambda: DatabaseClosedError("closed"))
        room.set()
        with pytest.raises(DatabaseClosedError):
            await asyncio.wait_for(waiter, 4)


async def test_later_use_says_closed(db: SQLiteDatabase) -> None:
    """So do sessions, the session maker, and engines that the application has kept."""
    sessionmaker = db.sessionmaker
    await db.close()
    for use in (write(db), read(db)):
        with pytest.raises(DatabaseClosedError, match="was closed; open it again with `async with"):
            await use
    with pytest.raises(DatabaseClosedError):
        async with sessionmaker() as session:
            await session.execute(UPDATE_FIRST)
    for engine in (db.writer_engine, db.reader_engine):
        with pytest.raises(DatabaseClosedError, match="was closed"):
            await engine.connect()


async def test_a_wrong_time_out_is_refused(db: SQLiteDatabase) -> None:
    """A wrong argument is refused before anything is closed."""
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds"):
        await db.close(-1)
    await write(db)


async def test_closing_twice_and_at_once(db: SQLiteDatabase) -> None:
    """Tasks that close at the same time wait for the same end."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        closing = [asyncio.create_task(db.close(60)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in closing)
    await asyncio.gather(*closing)
    await db.close()
    assert "closed" in repr(db)


async def test_closing_from_two_loops_at_once(db: SQLiteDatabase) -> None:
    """The other loop waits for the same end."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        closing = asyncio.create_task(db.close(60))
        await until(lambda: "closing" in repr(db))
        other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(db.close())))
    await asyncio.gather(closing, other)


class SharedLock:
    """A lock that sets ``wanted`` when a second thread asks for it."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._asked: list[None] = []
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._asked.append(None)
        if len(self._asked) == 2:
            self.wanted.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


async def test_two_threads_close_at_the_same_time(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them starts the closing, and both wait for its end.

    One thread                | Other thread
    takes the lock            |
                              | waits for the lock
    starts the closing        |
    releases the lock         |
                              | finds the closing
    """
    began: list[None] = []

    def wait_and_begin(work: Callable[[], Coroutine[Any, Any, None]]) -> Any:
        began.append(None)
        assert lock.wanted.wait(10)
        return begin(work)

    begin = life_cycle._Closing
    lock = db._changing = SharedLock()  # type: ignore[assignment]
    monkeypatch.setattr(life_cycle, "_Closing", wait_and_begin)
    await asyncio.gather(*(asyncio.to_thread(asyncio.run, db.close()) for _ in range(2)))
    assert len(began) == 1
    assert "closed" in repr(db)


async def test_a_cancelled_close_goes_on(db: SQLiteDatabase, path: Path) -> None:
    """A cancellation ends the wait of its task, not the closing."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        closing = asyncio.create_task(db.close(60))
        await until(lambda: "closing" in repr(db))
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    await db.close()
    assert files_beside(path) == {"app.db"}


async def test_closing_while_it_opens(path: Path) -> None:
    """open() raises an error that says why, and no connection stays open."""
    db = SQLiteDatabase(path)
    opening = asyncio.create_task(db.open())
    await asyncio.sleep(0)
    await db.close()
    with pytest.raises(DatabaseClosedError):
        await opening
    assert files_beside(path) <= {"app.db"}


async def test_closing_what_was_never_opened(path: Path) -> None:
    """No file is created."""
    db = SQLiteDatabase(path)
    await db.close()
    assert files_beside(path) == set()
    with pytest.raises(DatabaseClosedError):
        await read(db)


@pytest.mark.needs_thread
async def test_a_thread_that_does_not_come_back_does_not_stop_the_closing(path: Path) -> None:
    """A function of the application that sleeps cannot be interrupted, and is left running."""
    function = SleepingFunction()
    db = SQLiteDatabase(path, readers=1, on_connect=function.on_connect)
    await db.open()

    async def work() -> None:
        async with db.read() as session:
            await session.execute(text("SELECT sleep()"))

    task = asyncio.create_task(work())
    await until(function.inside.is_set)
    await asyncio.wait_for(db.close(0), 10)
    function.leave.set()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.needs_thread
async def test_leaving_the_block_by_a_cancellation_is_quick(path: Path) -> None:
    """Ctrl-C does not wait for close_timeout, which is an hour here."""
    started = asyncio.Event()

    async def work(db: SQLiteDatabase) -> None:
        async with db.read() as session:
            started.set()
            await session.execute(ENDLESS)

    async def main() -> None:
        async with SQLiteDatabase(path, close_timeout=3600) as db:
            tasks.append(asyncio.create_task(work(db)))
            await asyncio.Event().wait()

    tasks: list[asyncio.Task[None]] = []
    task = asyncio.create_task(main())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    with pytest.raises((OperationalError, DatabaseClosedError)):
        await tasks[0]


def test_the_loop_may_end_while_it_closes(path: Path) -> None:
    """asyncio.run() cancels the closing: running work is stopped, and nothing hangs."""

    db = SQLiteDatabase(path)

    async def main() -> None:
        await db.open()
        session = db.sessionmaker(role="writer")
        await session.execute(text("CREATE TABLE t (id)"))
        held.append(session)
        closing = asyncio.ensure_future(db.close(3600))
        await until(lambda: "closing" in repr(db))
        closing.cancel()

    held: list[object] = []
    asyncio.run(main())
    with pytest.warns(SAWarning, match="non-checked-in"):
        held.clear()
        gc.collect()
    connection = sqlite3.connect(path, timeout=10)
    connection.execute("BEGIN IMMEDIATE")
    connection.close()
    asyncio.run(db.close())
