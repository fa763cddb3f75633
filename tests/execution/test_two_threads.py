"""One connection that two tasks use at the same time: one thread at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.execution.jobs import Job
from sa_sqlite_pool.execution.raw import WorkQueue
from sa_sqlite_pool.execution.shared_thread import SharedThread
from tests.children import Child, needs_fork_server
from tests.execution.stream_programs import streams_beside_a_statement
from tests.execution.workers import Gate, give_up, open_worker, outcome
from tests.helpers import ENDLESS, until

pytestmark = pytest.mark.needs_thread


@needs_fork_server
def test_a_stream_and_a_statement_do_not_stop_eachother(path: Path) -> None:
    """The statement calls a function in Python, for which it needs the interpreter lock.

    While it holds that lock, ``sqlite3`` waits for SQLite's mutex, which the statement holds.
    """
    with Child(streams_beside_a_statement, path) as child:
        assert child.hear() == [3, 1]


async def test_what_waits_for_a_job_is_cancelled_at_once() -> None:
    """The connection is not at rest before the running job is over."""
    shared = SharedThread()
    worker, other = await open_worker(shared), await open_worker(shared)
    gate = Gate()
    first = asyncio.ensure_future(outcome(worker.run(gate, text="SELECT 1")))
    await gate.reached.wait()
    called: list[object] = []
    second = asyncio.ensure_future(outcome(worker.run(called.append)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not worker.at_rest
    assert worker.idle_connection is None
    gate.open()
    assert await first == "through"
    await until(lambda: worker.at_rest)
    assert called == []
    third = worker.run(called.append, text="SELECT 1")
    await third
    assert len(called) == 1
    for one in (worker, other):
        await one.close()
    shared.stop()


async def test_what_could_not_be_queued_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job still waits for the one that runs in the other thread."""
    shared = SharedThread()
    worker, other = await open_worker(shared), await open_worker(shared)
    gate = Gate()
    first = asyncio.ensure_future(outcome(worker.run(gate, text="SELECT 1")))
    await gate.reached.wait()

    def fail(*_: object) -> None:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(WorkQueue, "put_job", fail)
        with pytest.raises(RecursionError):
            worker.run(lambda _: None)
    second = asyncio.ensure_future(outcome(worker.run(lambda _: "done")))
    ended, _ = await asyncio.wait([second], timeout=0.05)
    assert not ended
    gate.open()
    assert await first == "through"
    assert await second == "done"
    for one in (worker, other):
        await one.close()
    shared.stop()


async def test_a_job_that_is_stopped_is_the_one_that_runs() -> None:
    """It is not one that waits for the running one."""
    shared = SharedThread()
    worker, other = await open_worker(shared), await open_worker(shared)
    gate = Gate()
    first = asyncio.ensure_future(outcome(worker.run(gate, text="SELECT 1")))
    await gate.reached.wait()
    second = asyncio.ensure_future(outcome(worker.run(lambda _: "done")))
    await asyncio.sleep(0)
    worker.stop_job()
    assert worker.must_stop
    gate.open()
    await first
    assert await second == "done"
    assert not worker.must_stop
    for one in (worker, other):
        await one.close()
    shared.stop()


async def test_it_is_given_up_while_a_cancelled_job_waits() -> None:
    """The cancelled job is over, too."""
    shared = SharedThread()
    worker, other = await open_worker(shared), await open_worker(shared)
    gate = Gate()
    first = asyncio.ensure_future(outcome(worker.run(gate, text="SELECT 1")))
    await gate.reached.wait()
    second = asyncio.ensure_future(outcome(worker.run(lambda _: None)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    given_up = asyncio.ensure_future(give_up(worker, keep=False))
    await asyncio.sleep(0)
    gate.open()
    assert await first == "through"
    await asyncio.wait_for(given_up, 10)
    await other.close()
    shared.stop()


async def test_what_the_application_has_sent_does_not_run_beside_a_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This includes giving up the connection, which stops the job first."""
    shared = SharedThread()
    worker, other = await open_worker(shared), await open_worker(shared)
    gate = Gate()
    first = asyncio.ensure_future(outcome(worker.run(gate, text="SELECT 1")))
    await gate.reached.wait()
    worker.lent = True
    worker.run_after_job(lambda _: None)
    job = worker._last_job
    assert job is not None
    beside: list[bool] = []
    raw: Any = worker.aiosqlite_connection

    sent = asyncio.ensure_future(raw._execute(lambda: beside.append(not job.over)))
    await asyncio.sleep(0)
    stopping: list[None] = []
    monkeypatch.setattr(Job, "_interrupt", lambda _: stopping.append(None))
    worker.give_up("test", keep=False, done=lambda _: None)
    await until(lambda: len(stopping) > 2 or beside)
    gate.open()
    await first
    await asyncio.wait([sent])
    assert beside == [False]
    await other.close()
    shared.stop()


async def test_closing_ends_both(path: Path) -> None:
    """Both the running one, in whichever thread, and the one that waits for it end."""
    db = SQLiteDatabase(path, readers=2)
    await db.open()
    async with db.reader_engine.connect(), db.reader_engine.connect() as connection:
        rows = text("SELECT value FROM json_each('[1, 2, 3]')")
        stream = await connection.stream(rows, execution_options={"yield_per": 1})
        worker: Any = (await connection.get_raw_connection()).dbapi_connection.worker  # type: ignore[union-attr]
        running = asyncio.create_task(connection.execute(ENDLESS))
        await until(lambda: not worker.at_rest)
        runs = worker._last_job
        fetching = asyncio.create_task(stream.fetchall())
        await until(lambda: worker._last_job is not runs)
        await asyncio.wait_for(db.close(0), 10)
        for task in (running, fetching):
            await asyncio.wait([task], timeout=10)
            assert task.done()
            assert task.exception() is not None
        await until(lambda: runs.over)
