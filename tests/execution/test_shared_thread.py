"""The shared thread: short statements one after the other, long ones out of the way."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.execution.shared_thread import SharedThread, SharedThreadStatistics
from tests.execution.workers import Gate, open_worker, outcome
from tests.helpers import until


def thread_of(_: sqlite3.Connection) -> int:
    return threading.get_ident()


def _wait_for(event: threading.Event) -> None:
    assert event.wait(10)


def shared_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sa_sqlite_pool-shared"}


@pytest.fixture
async def shared() -> AsyncIterator[SharedThread]:
    """Yield a shared thread for which no statement is long, because its clock stands still."""
    before = shared_threads()
    shared = SharedThread(patience=0.01, clock=lambda: 0.0)
    yield shared
    shared.stop()
    await until(lambda: shared_threads() <= before)


@pytest.fixture
async def workers(shared: SharedThread) -> AsyncIterator[list[ConnectionThread]]:
    opened = [await open_worker(shared) for _ in range(4)]
    yield opened
    for worker in opened:
        await worker.close()


async def test_statements_of_all_connections_run_in_one_thread(
    workers: list[ConnectionThread],
) -> None:
    """One thread competes with the loop, not four."""
    threads = set[int]()
    for _ in range(5):
        jobs = [worker.run(thread_of, text="SELECT 1") for worker in workers]
        threads |= {await job for job in jobs}
    assert len(threads) == 1


async def test_what_is_no_statement_runs_in_the_connections_own_thread(
    workers: list[ConnectionThread],
) -> None:
    """Fetching from a stream, opening and closing delay no other connection."""
    threads = {await worker.run(thread_of) for worker in workers}
    assert len(threads) == 4
    assert await workers[0].run(thread_of, text="SELECT 1") not in threads


async def test_statements_run_in_order_of_arrival(workers: list[ConnectionThread]) -> None:
    """All connections are treated fairly."""
    gate, order = Gate(), list[int]()
    first = asyncio.ensure_future(outcome(workers[0].run(gate, text="short")))
    await gate.reached.wait()

    def note(number: int, _: sqlite3.Connection) -> None:
        order.append(number)

    rest = [
        asyncio.ensure_future(outcome(worker.run(partial(note, number), text="short")))
        for number, worker in enumerate(workers[1:])
    ]
    gate.open()
    await asyncio.gather(first, *rest)
    assert order == [0, 1, 2]


async def test_a_long_statement_holds_nobody_up(
    shared: SharedThread, workers: list[ConnectionThread]
) -> None:
    """Others continue in another thread, and the text leaves the shared thread for good.

    Its thread       | Another thread
    long …           | (short is queued)
    … 10 ms …        | short
    """
    shared._clock = time.monotonic
    gate = Gate()
    long = asyncio.ensure_future(outcome(workers[0].run(gate, text="long")))
    await gate.reached.wait()
    assert shared.takes("long")
    await workers[1].run(thread_of, text="short")
    assert not shared.takes("long")
    assert shared.takes("short")
    own_thread = await workers[2].run(thread_of)
    assert await workers[2].run(thread_of, text="long") == own_thread
    gate.open()
    assert await long == "through"
    assert await workers[3].run(thread_of, text="short") != own_thread


async def test_a_long_queue_is_no_long_statement() -> None:
    """Only texts that run long are remembered, not those that wait long behind many.

    Its thread        | Loop
    each takes 0.6 s  |
                      | checks in the middle: none has taken 1 s
    """
    now = 0.0
    shared, loop = SharedThread(patience=1.0, clock=lambda: now), asyncio.get_running_loop()
    workers = [await open_worker(shared) for _ in range(16)]

    def shorter_than_patience(_: sqlite3.Connection) -> int:
        nonlocal now
        now += 0.6
        looked = threading.Event()
        loop.call_soon_threadsafe(shared._look)
        loop.call_soon_threadsafe(looked.set)
        assert looked.wait(10)
        return threading.get_ident()

    jobs = [
        worker.run(shorter_than_patience, text=f"{number}") for number, worker in enumerate(workers)
    ]
    assert len({await job for job in jobs}) == 1
    assert all(shared.takes(f"{number}") for number in range(16))
    for worker in workers:
        await worker.close()
    shared.stop()


async def test_a_thread_that_has_yet_to_begin_is_no_long_statement() -> None:
    """On a busy machine, a thread may start late; the text that it ran last is not to blame.

    Its thread    | Loop
    first         |
    (sleeps)      | second, third are queued
                  | checks after 2 s
    second, third |
    """
    now = 0.0
    shared = SharedThread(patience=1.0, clock=lambda: now)
    worker, other = await open_worker(shared), await open_worker(shared)
    thread = await worker.run(thread_of, text="first")
    await until(lambda: shared._idle)
    awake = threading.Event()
    shared._idle[0].calls.put(partial(_wait_for, awake))
    jobs = [worker.run(thread_of, text="second"), other.run(thread_of, text="third")]
    now += 2.0
    shared._look()
    awake.set()
    assert [await job for job in jobs] == [thread, thread]
    assert shared.takes("first")
    await worker.close()
    await other.close()
    shared.stop()


async def test_a_cancelled_statement_in_the_queue_never_runs(
    workers: list[ConnectionThread],
) -> None:
    """Clean cancellation: the statement leaves the queue."""
    gate, ran = Gate(), threading.Event()
    first = asyncio.ensure_future(outcome(workers[0].run(gate, text="short")))
    await gate.reached.wait()
    second = asyncio.ensure_future(outcome(workers[1].run(lambda _: ran.set(), text="short")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open()
    await first
    await workers[2].run(thread_of, text="short")
    assert not ran.is_set()


async def test_giving_up_waits_for_the_shared_thread(shared: SharedThread) -> None:
    """A connection is never closed while a thread uses it; the thread is interrupted first."""
    worker = await open_worker(shared)
    closed = threading.Event()
    started = threading.Event()

    def endless(connection: sqlite3.Connection) -> object:
        started.set()
        return connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        ).fetchone()

    job = worker.run(endless, text="endless")
    assert started.wait(10)
    worker.give_up("reason", keep=False, done=lambda _: closed.set())
    assert closed.wait(10)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await job


async def test_a_busy_thread_ends_when_it_comes_to_rest() -> None:
    """This includes one left behind with a long statement; new ones start at the next use."""
    before = shared_threads()
    shared = SharedThread(patience=0.01)
    first, second = await open_worker(shared), await open_worker(shared)
    gate = Gate()
    long = asyncio.ensure_future(outcome(first.run(gate, text="long")))
    await gate.reached.wait()
    await second.run(thread_of, text="short")
    started = shared_threads() - before
    assert len(started) == 2
    shared.stop()
    assert await second.run(lambda _: "again", text="short") == "again"
    gate.open()
    await long
    await until(lambda: not started & shared_threads())
    shared.stop()
    await first.close()
    await second.close()


def test_a_shared_thread_goes_on_in_another_loop() -> None:
    """The loop that watched it is closed, and the next one watches it."""
    shared = SharedThread(patience=0.01)

    async def hold_up() -> None:
        first, second = await open_worker(shared), await open_worker(shared)
        gate = Gate()
        long = asyncio.ensure_future(outcome(first.run(gate, text="long")))
        await gate.reached.wait()
        assert await second.run(lambda _: "short", text="short") == "short"
        gate.open()
        await long
        shared._slow.clear()
        await first.close()
        await second.close()

    asyncio.run(hold_up())
    asyncio.run(hold_up())
    shared.stop()


async def test_the_threads_end_with_the_object() -> None:
    """An engine that is never disposed of leaves no thread behind."""
    before = shared_threads()
    shared = SharedThread()
    worker = await open_worker(shared)
    await worker.run(thread_of, text="SELECT 1")
    await worker.close()
    started = shared_threads() - before
    assert started
    del shared, worker
    gc.collect()
    await until(lambda: not started & shared_threads())


async def test_texts_are_forgotten_in_the_end(shared: SharedThread) -> None:
    """The memory for slow texts is bounded."""
    for number in range(2000):
        shared._remember(f"SELECT {number}")
    assert shared.takes("SELECT 0")
    assert not shared.takes("SELECT 1999")
    assert len(shared._slow) == 512


async def test_statistics(shared: SharedThread, workers: list[ConnectionThread]) -> None:
    """They are a frozen value: running, waiting and idle threads, and texts known to be slow."""
    assert shared.statistics() == SharedThreadStatistics(False, 0, 0, 0)
    gate = Gate()
    first, second = workers[0].run(gate, text="1"), workers[1].run(thread_of, text="2")
    await gate.reached.wait()
    shared._remember("slow")
    assert shared.statistics() == SharedThreadStatistics(
        busy=True, jobs_waiting=1, threads_idle=0, texts_excluded=1
    )
    gate.open()
    await first
    await second
    await until(lambda: not shared.statistics().busy)
    assert shared.statistics() == SharedThreadStatistics(False, 0, 1, 1)


async def test_a_single_connection_does_without(path: Path) -> None:
    """Its own thread serves the statements until the engine opens another connection."""
    before = shared_threads()
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, placement="thread"
    )
    async with engine.connect() as first:
        await first.execute(text("SELECT 1"))
        assert shared_threads() == before
        async with engine.connect() as second:
            await second.execute(text("SELECT 1"))
            assert len(shared_threads() - before) == 1
    await engine.dispose()
    await until(lambda: shared_threads() == before)
    async with engine.connect() as again:
        await again.execute(text("SELECT 1"))
    assert shared_threads() == before
    await engine.dispose()


async def test_where_no_thread_can_be_started(
    workers: list[ConnectionThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statements run in the existing threads, and none is left over."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", start)
        threads = [await worker.run(thread_of, text="SELECT 1") for worker in workers]
    assert threads == [await worker.run(thread_of) for worker in workers]
    assert len({await worker.run(thread_of, text="SELECT 1") for worker in workers}) == 1


async def test_a_statement_that_cannot_be_sent(
    workers: list[ConnectionThread], shared: SharedThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task waits for it, and it does not run later."""
    [worker, *_], ran = workers, list[str]()

    def interrupted(*_: object) -> bool:
        raise TimeoutError("of a signal's handler")

    with monkeypatch.context() as interrupting:
        interrupting.setattr(SharedThread, "submit", interrupted)
        with pytest.raises(TimeoutError):
            worker.run(lambda _: ran.append("first"), text="SELECT 1")
    assert worker.at_rest
    await asyncio.wait_for(outcome(worker.run(lambda _: ran.append("second"))), 5)
    await asyncio.wait_for(outcome(worker.run(lambda _: ran.append("third"), text="SELECT 1")), 5)
    assert ran == ["second", "third"]
