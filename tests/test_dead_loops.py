"""Loops that are closed while tasks of other loops wait for resources that their tasks hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.turn import permit
from sa_sqlite_pool.wal import keeper
from tests.dead_loops import bury, wait_for_ever
from tests.helpers import UPDATE_FIRST, amounts, create_items, files_beside, read, write

Main = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def db(path: Path) -> Iterator[SQLiteDatabase]:
    """Provide an open database whose loop is closed."""
    db = SQLiteDatabase(path, readers=1, write_timeout=20, read_timeout=20)

    async def open_it() -> None:
        await db.open()
        await create_items(db.writer_engine)

    asyncio.run(open_it())
    yield db
    asyncio.run(db.close())


def until_it_waits(main: Main) -> tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]:
    """Run ``main`` in a new loop until it is in :func:`wait_for_ever`; then stop the loop."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    task.ready = threading.Event()  # type: ignore[attr-defined]

    async def until_ready() -> None:
        while not task.ready.is_set():  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    loop.run_until_complete(until_ready())
    return loop, task


@pytest.mark.parametrize("use", [write, read])
def test_who_waits_already_is_served(
    db: SQLiteDatabase, use: Callable[[SQLiteDatabase], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder's loop is closed while another loop waits in line, and no other task arrives."""
    monkeypatch.setattr(permit, "LOOK_SECONDS", 0.05)
    block = db.write if use is write else db.read

    async def hold() -> None:
        async with block() as session:
            await session.execute(UPDATE_FIRST if use is write else text("SELECT 1"))
            await wait_for_ever()

    pool: Any = (db.writer_engine if use is write else db.reader_engine).pool
    loop, task = until_it_waits(hold)
    with ThreadPoolExecutor(1) as threads:
        used = threads.submit(lambda: asyncio.run(use(db)))
        while not pool.waiting:
            assert not used.done()
        loop.close()
        used.result(10)
    assert asyncio.run(amounts(db.reader_engine)) == [int(use is write), 0, 0]
    bury(task)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_loop_that_dies_in_a_listener(db: SQLiteDatabase, kind: str) -> None:
    """It was given the connection, but a "checkout" listener waits before the task receives it."""
    engine = db.writer_engine if kind == "write" else db.reader_engine
    once = [True]

    @event.listens_for(engine.sync_engine.pool, "checkout")
    def waits(connection: Any, *_: object) -> None:
        if once:
            once.clear()
            connection.execute("SELECT 1")
            connection.executor.transaction.wait_for(wait_for_ever())

    loop, task = until_it_waits(lambda: write(db) if kind == "write" else read(db))
    loop.close()
    asyncio.run(asyncio.wait_for(write(db) if kind == "write" else read(db), 10))
    assert len(engine.pool.checkouts) == 0  # type: ignore[attr-defined]
    bury(task)
    asyncio.run(write(db))


class Closing:
    """A database that is being closed in its own loop, and waits for a transaction."""

    def __init__(self, db: SQLiteDatabase) -> None:
        self._db = db
        self.loop, self._task = until_it_waits(self._hold)
        self._session: Any = None

    async def _hold(self) -> None:
        async with self._db.write() as session:
            await session.execute(UPDATE_FIRST)
            self._closing = asyncio.ensure_future(self._db.close(3600))
            while "closing" not in repr(self._db):
                await asyncio.sleep(0)
            await wait_for_ever()

    def bury(self) -> None:
        self.loop.close()
        closing = self._db._term.closing
        assert closing is not None
        for task in (self._closing, closing._task, self._task):
            bury(task)


@pytest.mark.parametrize("is_closed", [True, False])
def test_another_loop_goes_on_closing(db: SQLiteDatabase, path: Path, is_closed: bool) -> None:
    """This works if the loop that began the closing is closed, or was abandoned by its program."""
    closing = Closing(db)
    if is_closed:
        closing.loop.close()
    asyncio.run(asyncio.wait_for(db.close(0), 10))
    assert "closed" in repr(db)
    assert files_beside(path) == {"app.db"}
    closing.bury()


def test_a_loop_that_waits_for_the_closing_goes_on(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that began it ends while others wait: one of them continues the closing."""
    ended, end_work = [], SQLiteDatabase._end_work

    async def count_and_end(self: SQLiteDatabase, timeout: float) -> None:
        ended.append(timeout)
        await end_work(self, timeout)

    monkeypatch.setattr(SQLiteDatabase, "_end_work", count_and_end)
    going_on, died = threading.Event(), threading.Event()

    async def hold() -> None:
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
            asyncio.ensure_future(db.close(3600))  # noqa: RUF006 - the database keeps it
            while "closing" not in repr(db):
                await asyncio.sleep(0)
            going_on.set()
            await asyncio.to_thread(died.wait, 10)

    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task[None]] = []

    def run() -> None:
        tasks.append(loop.create_task(hold()))

        async def until_it_dies() -> None:
            await asyncio.to_thread(died.wait, 10)

        loop.run_until_complete(until_it_dies())

    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(run)
        going_on.wait(10)
        closes = [threads.submit(lambda: asyncio.run(db.close(0))) for _ in range(2)]
        died.set()
        running.result(10)
        loop.close()
        for close in closes:
            close.result(10)
    assert ended == [3600, 0]
    assert "closed" in repr(db)


def test_what_a_cancellation_has_left_is_closed(db: SQLiteDatabase, path: Path) -> None:
    """asyncio.run() cancels the closing at its end, and the next call of close() continues it."""

    async def main() -> None:
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
            closing = asyncio.ensure_future(db.close(3600))
            while "closing" not in repr(db):
                await asyncio.sleep(0)
            assert not closing.done()

    async def leave() -> None:
        task = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        while "closing" not in repr(db):
            await asyncio.sleep(0)
        del task

    asyncio.run(leave())
    asyncio.run(asyncio.wait_for(db.close(), 10))
    assert "closed" in repr(db)
    assert files_beside(path) == {"app.db"}


@pytest.mark.parametrize("is_closed", [True, False])
def test_opening_waits_for_no_loop_that_died(
    db: SQLiteDatabase, is_closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another loop tidies up the log of an earlier process, and ends in the middle."""
    monkeypatch.setattr(keeper, "_LOOK_SECONDS", 0.05)
    found = db._keeper
    assert found is not None
    monkeypatch.setattr(found.monitor, "is_large", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(keeper.WalKeeper, "_work", lambda *_, **__: asyncio.Event().wait())

        async def begin() -> None:
            found._start(idle=True)
            await wait_for_ever()

        loop, task = until_it_waits(begin)
    works: Any = found._task
    assert works is not None
    if is_closed:
        with ThreadPoolExecutor(1) as threads:
            monkeypatch.setattr(found, "_task_runs", lambda: True)
            opening = threads.submit(lambda: asyncio.run(found.tidy_up()))
            loop.close()
            opening.result(10)
    else:
        asyncio.run(asyncio.wait_for(found.tidy_up(), 10))
        loop.close()
    bury(task)
    bury(works)
