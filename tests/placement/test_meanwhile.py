"""The connection is used concurrently, by the application itself or by the call that revokes it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SnapshotTooOldError, SQLitePool, WriterPool
from sa_sqlite_pool.compat.greenlets import greenlet_spawn
from sa_sqlite_pool.driver import attempts, executor
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.transactions import transaction, writing
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, SleepingFunction, create_items, driver, turn_of, until
from tests.placement.work import READ, WRITE, Run, Trace, learn, run, snapshots_of
from tests.turn.steps import Meanwhile, every_step


@pytest.mark.parametrize("statement", [READ, WRITE])
async def test_the_application_uses_the_connection_itself(
    make_engine: MakeEngine, trace: Trace, statement: str
) -> None:
    """It does so in the connection's thread, where later statements queue."""
    engine = make_engine(SQLitePool, on_connect=trace.on_connect)
    await create_items(engine)
    await learn(engine, READ, WRITE)
    leave = threading.Event()
    async with engine.connect() as connection:
        await connection.execute(text("BEGIN"))
        await connection.execute(text(statement))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        working = [asyncio.create_task(raw._execute(leave.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)

        async def go_on() -> None:
            await connection.execute(text(READ))
            await connection.commit()

        worker = (await driver(connection)).worker
        before = worker.hops
        with trace.recorded() as runs:
            going_on = asyncio.create_task(go_on())
            await until(lambda: worker.hops > before)
            assert runs == []
            leave.set()
            await going_on
        assert await asyncio.gather(*working) == [True, True]
    assert runs == [Run(READ, False), Run("COMMIT", False)]


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool, WriterPool])
async def test_the_application_ends_the_transaction_itself(
    make_engine: MakeEngine, path: Path, poolclass: type
) -> None:
    """Nothing remains to be sent, but the turn and the snapshot must be released."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass)
    async with engine.connect() as connection:
        await connection.execute(text(READ) if poolclass is ReaderPool else UPDATE_FIRST)
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.execute("COMMIT")
        transaction = (await driver(connection)).executor.transaction
        assert transaction.snapshot is not None or transaction.writing.begun
        await connection.commit()
        assert not transaction.writing.begun
        assert list(snapshots_of(engine)) == []
        assert turn_of(path).holder is (transaction.permit if poolclass is WriterPool else None)


@pytest.mark.needs_thread
async def test_a_snapshot_that_is_ended_while_it_is_read(make_engine: MakeEngine) -> None:
    """It has a holder as long as the thread uses it, even if no transaction is open."""
    sleeping = SleepingFunction()
    engine = make_engine(SQLitePool, on_connect=sleeping.on_connect)
    await create_items(engine)
    snapshots = snapshots_of(engine)
    reading = asyncio.create_task(run(engine, "SELECT sleep()"))
    await until(sleeping.inside.is_set)
    (snapshot,) = snapshots
    snapshot.end_early(lambda: SnapshotTooOldError("it stood in the way"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert list(snapshots) == [snapshot]
    sleeping.leave.set()
    with pytest.raises(OperationalError, match="it stood in the way"):
        await reading
    assert list(snapshots) == []


@pytest.mark.needs_thread
async def test_a_cancellation_during_the_end(swap_in: AsyncEngine, path: Path) -> None:
    """It is raised once SQLite has answered, and by then the turn has been released.

    Until then, other tasks are shown the statement that is running.
    """
    inside, leave = threading.Event(), threading.Event()

    def begins(sql: str) -> None:
        if sql == "COMMIT":
            inside.set()
            leave.wait(10)

    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = await driver(connection)
        raw.worker.connection.set_trace_callback(begins)
        ending = asyncio.create_task(greenlet_spawn(raw.commit))
        await until(inside.is_set)
        holder = turn_of(path).holder
        assert holder is not None
        assert (holder.last_sql, holder.idle_since) == ("COMMIT", None)
        ending.cancel()
        asyncio.get_running_loop().call_soon(leave.set)
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert turn_of(path).holder is None
        raw.worker.connection.set_trace_callback(None)
    assert await run(swap_in, READ) == [[1]]


@pytest.mark.parametrize(
    "files",
    [(executor.__file__, attempts.__file__), (transaction.__file__,)],
    ids=["run", "end"],
)
async def test_given_up_between_any_two_steps(reader: AsyncEngine, files: tuple[str, ...]) -> None:
    """Another thread does so: the read succeeds or fails, and no snapshot is left to block a gap.

    A statement that is running at that moment is stopped by SQLite, which reports "interrupted".
    """
    snapshots, refusals = snapshots_of(reader), set[str]()
    for step, note in every_step():
        connection = await reader.connect()
        raw = await driver(connection)

        def give_up(raw: SQLiteConnection = raw) -> None:
            taking = threading.Thread(target=lambda: raw.give_up("taken", keep=True))
            taking.start()
            taking.join()

        def read(
            raw: SQLiteConnection = raw, step: int = step, give_up: Callable[[], None] = give_up
        ) -> Meanwhile:
            with Meanwhile(files, step, give_up) as meanwhile:
                try:
                    assert raw.execute(READ).fetchall() == [(0,)]
                    raw.rollback()
                except sqlite3.OperationalError as error:
                    refusals.add(str(error))
            return meanwhile

        note(await greenlet_spawn(read))
        await connection.close()
        await until(lambda: not list(snapshots))
    assert refusals <= {"no active connection: taken", "interrupted"}


async def test_two_threads_end_a_transaction(swap_in: AsyncEngine, path: Path) -> None:
    """Either may come first, between any two steps of the other: the turn is released once."""
    await create_items(swap_in)
    for step, note in every_step():
        async with swap_in.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            own = (await driver(connection)).executor.transaction.writing
            with Meanwhile(writing.__file__, step, own.end) as meanwhile:
                own.end()
            note(meanwhile)
            assert not own.begun
            assert turn_of(path).holder is None
