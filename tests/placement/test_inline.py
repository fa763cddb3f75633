"""Statements known to be short run on the event loop, with no other difference."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, WriterPool
from sa_sqlite_pool.execution import loop_budget
from tests.conftest import MakeEngine
from tests.helpers import create_items, driver, turn_of, until
from tests.placement.work import LEARNING, READ, WRITE, Run, Trace, learn, run


def gives_way_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for name in ("LAP_SECONDS", "HOLDING_SECONDS"):
        monkeypatch.setattr(loop_budget, name, seconds)


async def test_a_short_read(make_engine: MakeEngine, trace: Trace) -> None:
    """It runs on the loop from the second time on, with BEGIN and the end of its transaction."""
    writer = make_engine(WriterPool)
    await create_items(writer)
    reader = make_engine(ReaderPool, on_connect=trace.on_connect)
    with trace.recorded() as first:
        await run(reader, READ)
    with trace.recorded() as second:
        assert await run(reader, READ) == [[0]]
    assert Run(READ, False) in first
    assert second == [Run("BEGIN", True), Run(READ, True), Run("COMMIT", True)]


async def test_a_short_write(engine: AsyncEngine, trace: Trace) -> None:
    """It runs on the loop from the fourth time on, with BEGIN IMMEDIATE and COMMIT."""
    for _ in range(3):
        with trace.recorded() as learning:
            await run(engine, WRITE)
        assert Run(WRITE, False) in learning
    with trace.recorded() as runs:
        await run(engine, WRITE)
    assert runs == [Run("BEGIN IMMEDIATE", True), Run(WRITE, True), Run("COMMIT", True)]
    assert await run(engine, READ) == [[4]]


async def test_no_hop(engine: AsyncEngine) -> None:
    await learn(engine, READ, WRITE)
    async with engine.begin() as connection:
        worker = (await driver(connection)).worker
        hops = worker.hops
        await connection.execute(text(WRITE))
        await connection.execute(text(READ))
    assert worker.hops == hops


async def test_each_connection_learns_for_itself(make_engine: MakeEngine, trace: Trace) -> None:
    """A text takes longer if it must be compiled, or if its pages are not in the cache."""
    await create_items(make_engine(WriterPool))
    reader = make_engine(ReaderPool, on_connect=trace.on_connect)
    async with reader.connect() as one, reader.connect() as other:
        for connection in (one, one, other, other):
            await connection.execute(text(READ))
    assert [inline for sql, inline in trace.runs if sql == READ] == [False, True, False, True]


async def test_everything_is_as_in_the_thread(engine: AsyncEngine) -> None:
    """Rows, row counts, ids and errors are the same."""
    insert = text("INSERT INTO items (amount) VALUES (7) RETURNING id")
    twice = text("INSERT INTO items (id, amount) VALUES (1, 1)")
    for number in range(1, 2 * LEARNING):
        async with engine.begin() as connection:
            assert (await connection.execute(text(WRITE))).rowcount == 1
            assert (await connection.execute(insert)).scalars().all() == [200 + number]
            with pytest.raises(Exception, match="UNIQUE constraint failed"):
                await connection.execute(twice)
            assert await connection.scalar(text("SELECT count(*) FROM items")) == 200 + number
        assert await run(engine, READ) == [[number]]


async def test_a_rollback(engine: AsyncEngine, trace: Trace) -> None:
    await learn(engine, WRITE)
    with trace.recorded() as runs:
        async with engine.connect() as connection:
            await connection.execute(text(WRITE))
            await connection.rollback()
    assert runs[-1] == Run("ROLLBACK", True)
    assert await run(engine, READ) == [[LEARNING]]


async def test_others_have_their_turn(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that only executes statements yields to others whenever its time is used up."""
    await learn(engine, READ)
    gives_way_after(monkeypatch, 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async with engine.connect() as connection:
        worker = (await driver(connection)).worker
        hops, before = worker.hops, turns
        for _ in range(100):
            await connection.execute(text(READ))
        assert worker.hops == hops
    assert turns - before >= 49  # before every statement except the first of a lap
    counting.cancel()


@pytest.mark.parametrize("writes", [False, True])
async def test_sessions_that_never_wait_give_way_too(
    path: Path, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """They yield one after the other, so that several tasks proceed at the same pace."""
    monkeypatch.setattr(loop_budget, "_FIRST_GUESS", 60.0)  # seconds: each lap fits only one
    monkeypatch.setattr(loop_budget, "_WEIGHT", 0.0)
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                reader = await stack.enter_async_context(db.reader_engine.connect())
                await reader.execute(text(READ))
        monkeypatch.setattr(loop_budget, "HOLDING_SECONDS", 60.0)
        done = [0, 0, 0]

        async def use(number: int) -> None:
            while max(done) < 100:
                async with db.write() if writes else db.read() as session:
                    await session.execute(text(WRITE if writes else READ))
                done[number] += 1

        await asyncio.gather(*map(use, range(3)))
        assert min(done) >= 80


async def test_nobody_gives_way_without_need(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task continues until its time is used up."""
    await learn(engine, READ)
    gives_way_after(monkeypatch, 60.0)
    async with engine.connect() as connection:
        await connection.execute(text(READ))
        other = asyncio.create_task(asyncio.sleep(0))
        for _ in range(100):
            await connection.execute(text(READ))
        assert not other.done()
    await other


async def test_a_cancellation_comes_before_or_after(
    engine: AsyncEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it arrives while the task waits for its turn on the loop, the statement never runs."""
    await learn(engine, WRITE)
    gives_way_after(monkeypatch, 0.0)

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(text(WRITE))

    cancelled = True
    steps = written = 0
    while cancelled:
        task = asyncio.create_task(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled = task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        written += not task.cancelled()
        await until(lambda: turn_of(path).holder is None)
        steps += 1
    assert steps > 3
    after = (await run(engine, READ))[0][0]
    assert LEARNING + written <= after <= LEARNING + steps
    async with engine.connect() as connection:
        assert not (await driver(connection)).in_transaction


class WatchedLock:
    """A lock; ``asked`` is set when a thread finds it locked."""

    def __init__(self, asked: threading.Event) -> None:
        self._lock, self._asked = threading.Lock(), asked
        self.locked = self._lock.locked

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._asked.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


async def test_a_connection_that_is_given_up_meanwhile(engine: AsyncEngine, path: Path) -> None:
    """Another thread does so during a statement, which ends before the rollback."""
    await learn(engine, WRITE)
    connection = await engine.connect()
    raw = await driver(connection)
    order: list[str] = []
    worker, gone, came = raw.worker, threading.Event(), threading.Event()
    worker._in_use = WatchedLock(came)  # type: ignore[assignment]

    def done(_: object) -> None:
        order.append("gone")
        gone.set()
        came.set()

    def use(_: sqlite3.Connection) -> None:
        taking = threading.Thread(target=lambda: worker.give_up("taken", keep=True, done=done))
        taking.start()
        taking.join()
        assert not worker.may_run_inline
        assert came.wait(10)  # until the thread waits, or has passed
        order.append("used")

    worker.call_inline(use)
    assert await asyncio.to_thread(gone.wait, 10)
    assert order == ["used", "gone"]
    await connection.close()
