"""Jobs in the thread of a connection: outcomes, cancellation, loops that are closed."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import threading
import weakref
from contextlib import suppress

import pytest

from sa_sqlite_pool.execution import jobs
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.execution.jobs import Job, OutOfTime
from sa_sqlite_pool.execution.running import ConnectionThreadStatistics
from tests.execution.workers import ENDLESS, Gate, give_up, open_worker, outcome
from tests.helpers import until


async def test_results_and_errors(worker: ConnectionThread) -> None:
    """A job returns or raises what its function does."""
    assert await worker.run(lambda c: c.execute("SELECT 7").fetchone()) == (7,)
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        await worker.run(lambda c: c.execute("nonsense"))
    assert worker.hops == 2


class Row:
    """An object that can be referenced weakly."""


async def test_nothing_of_a_job_is_kept(worker: ConnectionThread) -> None:
    """Neither its function, with a statement's parameters, nor its result is kept after its end."""
    parameter, row = Row(), Row()

    def function(_: object, parameter: Row = parameter, row: Row = row) -> list[Row]:
        return [row]

    rows = await worker.run(function)
    kept = [weakref.ref(each) for each in (parameter, row)]
    assert rows == [row]
    del function, parameter, row, rows
    assert [ref() for ref in kept] == [None, None]


async def test_nothing_of_a_job_that_ran_out_of_time_is_kept(worker: ConnectionThread) -> None:
    """SQLite's error, whose frames refer to the job, is freed with it, not by a collection."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def endless(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        connection.execute(ENDLESS)

    gc.collect()
    gc.disable()
    try:
        job = worker.run(endless)
        reference = weakref.ref(job)
        await begun.wait()
        job.time_is_over()
        with suppress(OutOfTime):  # pytest.raises() keeps the error
            await job
        del job
        await worker.run(lambda _: None)  # the thread, too, has seen another job
        await until(lambda: reference() is None)  # no timer is left to interrupt it again
    finally:
        gc.enable()


async def test_a_hop_takes_one_lap_of_the_loop(
    worker: ConnectionThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task resumes in the reporting callback, not a lap later."""
    laps = 0
    reported_in: list[int] = []
    loop, report = asyncio.get_running_loop(), Job.report

    def noted(job: Job[None]) -> None:
        reported_in.append(laps)
        report(job)

    def count() -> None:
        nonlocal laps
        laps += 1
        loop.call_soon(count)

    async def hop() -> None:
        await worker.run(lambda _: None)
        reported_in.append(laps)

    monkeypatch.setattr(Job, "report", noted)
    loop.call_soon(count)
    await hop()
    reported, went_on = reported_in
    assert reported == went_on


async def test_a_queued_job_is_dropped_when_cancelled(worker: ConnectionThread) -> None:
    """It never runs, and the task does not wait for the job before it."""
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


async def test_a_dropped_job_lets_its_function_go(worker: ConnectionThread) -> None:
    """The job may be kept until the next one, and its function has a statement's parameters."""
    gate = Gate()
    first = asyncio.ensure_future(outcome(worker.run(gate)))
    await gate.reached.wait()

    def function(_: sqlite3.Connection) -> None:
        raise AssertionError

    reference = weakref.ref(function)
    second = asyncio.ensure_future(outcome(worker.run(function)))
    del function
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open()
    await first
    await until(lambda: reference() is None)


async def test_a_running_statement_is_interrupted(worker: ConnectionThread) -> None:
    """CancelledError is raised when the thread is free, and the next statement is unaffected."""
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


async def test_what_must_not_be_interrupted_runs_to_its_end(worker: ConnectionThread) -> None:
    """However often it is cancelled, it completes; then CancelledError is raised."""
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
    assert job.over


async def test_what_must_not_be_interrupted_has_its_effect(worker: ConnectionThread) -> None:
    """This applies even to a statement that SQLite could interrupt."""
    gate, ended = Gate(), list[object]()
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) "

    def commit(connection: sqlite3.Connection) -> None:
        gate(connection)
        ended.append(connection.execute(count + "SELECT count(*) FROM n").fetchone())

    task = asyncio.ensure_future(outcome(worker.run(commit, interruptible=False)))
    await gate.reached.wait()
    gate.open()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert ended == [(300000,)]


async def test_a_cancellation_after_the_end_is_raised(worker: ConnectionThread) -> None:
    """The thread has finished, its report is on the way, and the task is cancelled."""
    job = worker.run(lambda _: None)
    task = asyncio.ensure_future(outcome(job))
    await asyncio.sleep(0)
    while not job.over:
        pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_asyncio_timeout_sees_its_own_cancellation(worker: ConnectionThread) -> None:
    """asyncio.wait_for() around a statement raises its TimeoutError."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(outcome(worker.run(lambda c: c.execute(ENDLESS).fetchone())), 0.01)
    assert await worker.run(lambda _: "free") == "free"


def test_a_result_for_a_dead_loop_is_dropped() -> None:
    """The thread survives and serves the next loop."""
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


async def test_nothing_runs_inline_beside_the_thread(worker: ConnectionThread) -> None:
    """The loop uses the connection only while its thread has nothing to do."""
    gate = Gate()
    assert worker.may_run_inline
    task = asyncio.ensure_future(outcome(worker.run(gate)))
    assert not worker.may_run_inline
    await gate.reached.wait()
    assert not worker.may_run_inline
    gate.open()
    await task
    assert worker.may_run_inline


async def test_closing(worker: ConnectionThread) -> None:
    """The thread ends; later calls raise the error that SQLAlchemy takes for a disconnect."""
    thread = worker.aiosqlite_connection._thread
    await worker.close()
    await worker.close()
    thread.join(10)
    assert worker.closed
    assert not worker.in_transaction
    with pytest.raises(sqlite3.OperationalError, match="no active connection"):
        worker.run(lambda _: None)


async def test_an_interrupt_that_comes_too_early_is_repeated(worker: ConnectionThread) -> None:
    """sqlite3_interrupt() has no effect on a connection that is not running anything yet.

    Task       | Thread
    run →      | (the job has begun, the statement has not)
    cancel()   |
               | endless statement
    """
    gate = Gate()

    def late(connection: sqlite3.Connection) -> object:
        gate(connection)
        return connection.execute(ENDLESS).fetchone()

    task = asyncio.ensure_future(outcome(worker.run(late)))
    await gate.reached.wait()
    task.cancel()
    await asyncio.sleep(0)
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_a_thread_that_does_not_come_back_is_left_to_itself(
    worker: ConnectionThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the application that sleeps cannot be interrupted, but its task continues."""
    monkeypatch.setattr(jobs, "_LET_GO_SECONDS", 0.02)
    gate = Gate()
    task = asyncio.ensure_future(outcome(worker.run(gate)))
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not worker.at_rest
    gone = asyncio.ensure_future(give_up(worker, keep=False))
    await asyncio.sleep(0)
    assert not gone.done()
    gate.open()
    assert await gone is None


async def test_time_is_over(worker: ConnectionThread) -> None:
    """A running statement is stopped, a queued one never begins; one that ended in time counts."""
    with pytest.raises(OutOfTime):
        await worker.run(lambda c: c.execute(ENDLESS).fetchone(), timeout=0.01)
    gate, ran = Gate(), threading.Event()
    first = asyncio.ensure_future(outcome(worker.run(gate)))
    with pytest.raises(OutOfTime):
        await worker.run(lambda _: ran.set(), timeout=0.0)
    gate.open()
    await first
    assert not ran.is_set()
    job = worker.run(lambda _: "done", timeout=60)
    while not job.over:
        pass
    job.time_is_over()  # before its report arrives
    assert await job == "done"


async def test_in_a_child_process_the_connection_is_never_freed(worker: ConnectionThread) -> None:
    """This includes the interpreter's exit, which would close it and drop the parent's locks."""
    connection = worker.connection
    references = sys.getrefcount(connection)
    worker.renew_in_child()
    assert sys.getrefcount(connection) == references  # one dropped, one kept for ever
    with pytest.raises(sqlite3.OperationalError, match=r"fork\(\) that created this one"):
        worker.run(lambda _: None)
    worker.aiosqlite_connection._connection = connection
    worker._stop()
    connection.close()


async def test_statistics(worker: ConnectionThread) -> None:
    """They are a frozen value: the work done, whether it is busy, and its end."""
    assert worker.statistics() == ConnectionThreadStatistics(hops=0, busy=False, ended=None)
    gate = Gate()
    job = worker.run(gate)
    await gate.reached.wait()
    assert worker.statistics() == ConnectionThreadStatistics(hops=1, busy=True, ended=None)
    gate.open()
    await job
    await worker.close()
    assert worker.statistics() == ConnectionThreadStatistics(2, False, "it was closed")
