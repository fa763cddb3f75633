"""Jobs in the thread of a connection: outcomes, cancellation, loops that die."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest

from sa_sqlite_pool.driver.worker import Worker
from tests.driver.workers import Gate, open_worker, outcome

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = await open_worker()
    yield worker
    await worker.close()


async def test_results_and_errors(worker: Worker) -> None:
    """What the function returns or raises."""
    assert await worker.run(lambda c: c.execute("SELECT 7").fetchone()) == (7,)
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        await worker.run(lambda c: c.execute("nonsense"))
    assert worker.hops == 2


async def test_a_hop_takes_one_lap_of_the_loop(worker: Worker) -> None:
    """The task goes on in the callback that reports, not a lap later."""
    laps = 0
    reported_in: list[int] = []
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal laps
        laps += 1
        loop.call_soon(count)

    async def hop() -> None:
        await worker.run(lambda _: loop.call_soon_threadsafe(lambda: reported_in.append(laps)))
        reported_in.append(laps)

    loop.call_soon(count)
    await hop()
    assert reported_in[1] - reported_in[0] <= 1


async def test_a_queued_job_is_dropped_when_cancelled(worker: Worker) -> None:
    """It never runs, and the task does not wait for the one before."""
    gate, ran = Gate(), threading.Event()
    first = asyncio.ensure_future(outcome(worker.run(gate)))
    await gate.reached.wait()
    second = asyncio.ensure_future(outcome(worker.run(lambda _: ran.set())))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open()
    assert await first == "through"
    await worker.run(lambda _: None)
    assert not ran.is_set()


async def test_a_running_statement_is_interrupted(worker: Worker) -> None:
    """CancelledError comes when the thread is free; the next statement is not hit."""
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(connection: sqlite3.Connection) -> object:
        def progress() -> int:
            loop.call_soon_threadsafe(started.set)
            return 0

        connection.set_progress_handler(progress, 1000)
        return connection.execute(ENDLESS).fetchone()

    task = asyncio.ensure_future(outcome(worker.run(endless)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.may_run_inline
    assert await worker.run(lambda c: c.execute("SELECT 1").fetchone()) == (1,)


async def test_what_must_not_be_interrupted_runs_to_its_end(worker: Worker) -> None:
    """However often it is cancelled; then CancelledError is raised."""
    gate = Gate()
    job = worker.run(gate, interruptible=False)
    task = asyncio.ensure_future(outcome(job))
    await gate.reached.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert job.let_go


async def test_a_cancellation_after_the_end_is_raised(worker: Worker) -> None:
    """The thread is done, the report is on its way, the task is cancelled."""
    job = worker.run(lambda _: None)
    task = asyncio.ensure_future(outcome(job))
    await asyncio.sleep(0)
    while not job.let_go:
        pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_asyncio_timeout_sees_its_own_cancellation(worker: Worker) -> None:
    """asyncio.wait_for() around a statement raises its TimeoutError."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(outcome(worker.run(lambda c: c.execute(ENDLESS).fetchone())), 0.01)
    assert await worker.run(lambda _: "free") == "free"


def test_a_result_for_a_dead_loop_is_dropped() -> None:
    """The thread lives on and serves the next loop."""
    loop = asyncio.new_event_loop()
    worker = loop.run_until_complete(open_worker())
    entered, leave = threading.Event(), threading.Event()

    def slow(_: sqlite3.Connection) -> None:
        entered.set()
        leave.wait(10)

    async def abandon() -> None:
        worker.run(slow)
        await asyncio.sleep(0)

    loop.run_until_complete(abandon())
    entered.wait(10)
    loop.close()
    leave.set()

    async def again() -> object:
        result = await worker.run(lambda c: c.execute("SELECT 1").fetchone())
        await worker.close()
        return result

    assert asyncio.run(again()) == (1,)


async def test_nothing_runs_inline_beside_the_thread(worker: Worker) -> None:
    """The loop uses the connection only while the thread has nothing to do."""
    gate = Gate()
    assert worker.may_run_inline
    task = asyncio.ensure_future(outcome(worker.run(gate)))
    assert not worker.may_run_inline
    await gate.reached.wait()
    assert not worker.may_run_inline
    gate.open()
    await task
    assert worker.may_run_inline


async def test_closing(worker: Worker) -> None:
    """The thread ends; what comes later gets the error that SQLAlchemy takes for a disconnect."""
    thread = worker.aiosqlite_connection._thread
    await worker.close()
    await worker.close()
    thread.join(10)
    assert worker.closed
    assert not worker.in_transaction
    with pytest.raises(sqlite3.OperationalError, match="no active connection"):
        worker.run(lambda _: None)


async def test_abandoning_rolls_back_and_tells(worker: Worker) -> None:
    """For the garbage collector: no waiting, and word when it is done."""
    closed = threading.Event()
    await worker.run(lambda c: c.execute("BEGIN IMMEDIATE"))
    worker.abandon(closed.set)
    assert closed.wait(10)
    again = threading.Event()
    worker.abandon(again.set)
    assert again.is_set()
