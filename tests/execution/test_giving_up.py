"""When a connection is given up, running work ends, and it is closed or kept."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from sa_sqlite_pool.execution.connection_thread import ConnectionThread, open_connection
from sa_sqlite_pool.execution.shared_thread import SharedThread
from tests.execution.workers import ENDLESS, Gate, give_up, open_worker, outcome


async def test_giving_up_closes(worker: ConnectionThread) -> None:
    """The transaction is rolled back, the thread ends, and the reason is reported."""
    thread = worker.aiosqlite_connection._thread
    await worker.run(lambda c: c.execute("BEGIN IMMEDIATE"))
    assert await give_up(worker, keep=False) is None
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(sqlite3.OperationalError, match="no active connection: reason"):
        worker.run(lambda _: None)
    assert await give_up(worker, keep=True) is None


async def test_giving_up_may_keep_the_connection(worker: ConnectionThread) -> None:
    """It is rolled back, its cursors closed, and kept warm; the old object is unusable."""
    connection = worker.connection
    await worker.run(lambda c: c.execute("CREATE TABLE t (id)"))
    await worker.run(lambda c: c.execute("BEGIN IMMEDIATE"))
    await worker.run(lambda c: c.execute("INSERT INTO t VALUES (1)"))
    cursor = await worker.run(lambda c: c.execute("SELECT id FROM t"))
    successor = await give_up(worker, keep=True, cursors=[cursor])
    assert successor is not None
    assert successor.connection is connection
    assert not successor.in_transaction
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cursor.fetchone()
    with pytest.raises(sqlite3.OperationalError, match="no active connection: reason"):
        worker.run(lambda _: None)
    assert await successor.run(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (0,)
    await successor.close()


async def test_giving_up_takes_no_hop_where_there_is_nothing_to_do(
    worker: ConnectionThread,
) -> None:
    """If cancelled while waiting for the turn, the connection is passed on immediately."""
    successors: list[ConnectionThread | None] = []
    worker.give_up("reason", keep=True, done=successors.append)
    (successor,) = successors
    assert successor is not None
    await successor.close()


async def test_a_broken_connection_is_not_kept(worker: ConnectionThread) -> None:
    """SQLite refuses to roll back."""

    def break_it(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)

    await worker.run(break_it)
    assert await give_up(worker, keep=True) is None


async def test_giving_up_awaits_what_must_not_be_interrupted(worker: ConnectionThread) -> None:
    """A COMMIT that runs when the database is closed completes, and its task is told so."""
    gate = Gate()
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) "

    def commit(connection: sqlite3.Connection) -> object:
        gate(connection)
        return connection.execute(count + "SELECT count(*) FROM n").fetchone()

    worker._shared = shared = SharedThread()
    job = worker.run(commit, text="COMMIT", interruptible=False)
    await gate.reached.wait()
    gone = asyncio.ensure_future(give_up(worker, keep=False))
    await asyncio.sleep(0)
    gate.open()
    assert await job == (300000,)
    assert await gone is None
    shared.stop()


async def test_a_queued_job_of_a_connection_given_up_fails(worker: ConnectionThread) -> None:
    """Its task is resumed with the reason, and waits for no other."""
    worker._shared = shared = SharedThread(clock=lambda: 0.0)
    other, gate = await open_worker(shared), Gate()
    long = asyncio.ensure_future(outcome(other.run(gate, text="long")))
    await gate.reached.wait()
    queued = asyncio.ensure_future(outcome(worker.run(lambda _: None, text="SELECT 1")))
    worker.give_up("reason", keep=False, done=lambda _: None)
    with pytest.raises(sqlite3.OperationalError, match="no active connection: reason"):
        await queued
    gate.open()
    await long
    await other.close()
    shared.stop()


@pytest.mark.parametrize("text", ["x", None])
async def test_a_statement_in_its_own_thread_is_stopped(text: str | None) -> None:
    """The rollback does not wait for the end of a statement that runs in the same thread.

    Without a text, it is one that computes for long between two rows, or a fetch.
    """
    worker = await open_worker()
    running = asyncio.create_task(outcome(worker.run(lambda raw: raw.execute(ENDLESS), text=text)))
    await asyncio.sleep(0)
    successor = await asyncio.wait_for(give_up(worker, keep=True), 10)
    with pytest.raises(sqlite3.OperationalError, match=r"interrupted|no active connection"):
        await running
    assert successor is not None
    assert await successor.run(lambda raw: raw.execute("SELECT 1").fetchone()) == (1,)
    await successor.close()


@pytest.mark.parametrize("keep", [True, False])
async def test_one_that_the_application_has_closed_beneath_aiosqlite(
    worker: ConnectionThread, keep: bool
) -> None:
    """It is not kept, and its thread ends."""
    thread = worker.aiosqlite_connection._thread
    worker.connection.close()
    assert await give_up(worker, keep=keep) is None
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


class FailsToClose(sqlite3.Connection):
    def close(self) -> None:
        super().close()
        raise ZeroDivisionError


async def test_one_that_fails_to_close_before_a_fork() -> None:
    """Its error is raised, and its thread ends nevertheless."""
    connection = await open_connection(
        [":memory:"], {"factory": FailsToClose, "check_same_thread": False}
    )
    worker = ConnectionThread(connection, threadsafe=True)
    with pytest.raises(ZeroDivisionError):
        worker.close_before_fork()
    await asyncio.to_thread(connection._thread.join, 10)
    assert not connection._thread.is_alive()
    assert worker.open_connection is None
