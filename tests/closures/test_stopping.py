"""Cancellations, time-outs, close(): of those that wait, and of those that run."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sa_sqlite_pool import (
    DatabaseClosedError,
    ReadTimeout,
    SnapshotTooOldError,
    SQLiteDatabase,
    StatementTimeout,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from sa_sqlite_pool.driver.writing import Writing
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.pools.writer import WriterPool
from sa_sqlite_pool.sessions.grouping import Group
from tests.closures.work import Inside, Sent, add, added, bump, in_line, turn_held
from tests.helpers import (
    ENDLESS,
    Item,
    SleepingFunction,
    create_items,
    turn_of,
    until,
    until_free,
    until_waiting,
)

LONG = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
    "SELECT count(*) FROM n"
)
ENDLESS_WRITE = text(
    "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n) "
    "INSERT INTO items (id, amount) SELECT i, 0 FROM n"
)


class Counting:
    """A function that says when it has begun."""

    def __init__(self, sql: object = ENDLESS) -> None:
        self.begun = threading.Event()
        self._sql = sql

    def __call__(self, connection: Connection) -> None:
        add(connection, 50)
        self.begun.set()
        connection.execute(self._sql)  # type: ignore[call-overload]


async def cancelled(task: asyncio.Future[Any]) -> bool:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def test_cancelled_in_line(db: SQLiteDatabase, path: Path) -> None:
    """Never runs; the others of its group do, and the line goes on."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11, 12)]
        await asyncio.sleep(0)
        assert await cancelled(tasks[0])
        assert await cancelled(tasks[2])
        assert turn_of(path).waiting == 1
    assert await tasks[1] == 11
    assert await added(db) == [11]


async def test_all_cancelled_in_line(db: SQLiteDatabase, path: Path) -> None:
    """A group in which nobody waits any more leaves the line, before its turn comes."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
        await asyncio.sleep(0)
        for task in tasks:
            assert await cancelled(task)
        await until(lambda: turn_of(path).waiting == 0)
    assert await db.run_write_core(add, 12) == 12
    assert await added(db) == [12]


@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_WRITE])
async def test_cancelled_while_it_runs(db: SQLiteDatabase, path: Path, sql: object) -> None:
    """One alone is stopped in the middle of its statement, and rolled back."""
    fn = Counting(sql)
    task = asyncio.ensure_future(db.run_write_core(fn))
    assert await asyncio.to_thread(fn.begun.wait, 30)
    assert await cancelled(task)
    await until_free(path)
    async with db.write() as session:  # and nothing stops the next on its connection
        assert await session.scalar(LONG) == 100_000
    assert await added(db) == []


async def test_a_reader_cancelled_while_it_runs(db: SQLiteDatabase) -> None:
    """Stopped in the middle of its statement; its connection goes on being used."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        begun.set()
        connection.execute(ENDLESS)

    task = asyncio.ensure_future(db.run_read_core(count))
    assert await asyncio.to_thread(begun.wait, 30)
    assert await cancelled(task)
    assert await added(db) == []


async def test_a_reader_cancelled_between_two_statements(db: SQLiteDatabase) -> None:
    """It does not go on with the next."""
    gone_on: list[int] = []

    def read(connection: Connection) -> None:
        inside(connection)
        gone_on.extend(connection.execute(text("SELECT 1")).scalars())

    inside = Inside()
    task = asyncio.ensure_future(db.run_read_core(read))
    await inside.until_entered()
    task.cancel()
    await asyncio.sleep(0)
    inside.leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone_on == []


async def test_a_snapshot_that_is_too_old(db: SQLiteDatabase) -> None:
    """Ended by the log's keeper, in the middle of a statement or before: the function is told."""

    def stay(connection: Connection) -> None:
        inside(connection)
        connection.execute(text("SELECT 1"))

    def count(connection: Connection) -> None:
        inside(connection)
        running.set()
        connection.execute(ENDLESS)

    pool = db.writer_engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None
    for fn in (stay, count):
        inside, running = Inside(), threading.Event()
        task = asyncio.ensure_future(db.run_read_core(fn))
        await inside.until_entered()
        if fn is count:
            inside.leave.set()
            assert await asyncio.to_thread(running.wait, 30)
        for snapshot in pool.keeper.snapshots:
            snapshot.end_early(lambda: SnapshotTooOldError("too old"))
        await asyncio.sleep(0)
        inside.leave.set()
        with pytest.raises(OperationalError, match="too old") as caught:
            await task
        assert isinstance(caught.value.orig, SnapshotTooOldError)
    assert await added(db) == []


async def test_a_reader_waits_for_a_gap(db: SQLiteDatabase) -> None:
    """Where the log is to be truncated, functions that read wait with the other readers."""
    pool = db.writer_engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None
    inside = Inside()
    inside.leave.set()
    with pool.keeper.snapshots.gap(30):
        task = asyncio.ensure_future(db.run_read_core(inside))
        for _ in range(20):
            await asyncio.sleep(0)
        assert inside.runs == 0
    await task
    assert inside.runs == 1


async def test_cancelled_in_a_group(db: SQLiteDatabase, path: Path) -> None:
    """Where SQLite would roll back the others' work, a statement that writes is not stopped: the
    function ends at its next statement, and is rolled back alone."""
    inside = Inside(bump)
    tasks: list[asyncio.Future[object]] = []
    async with turn_held(db):
        for fn in (lambda c: add(c, 10), inside, lambda c: add(c, 11)):
            tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
            await asyncio.sleep(0)
    await inside.until_entered()
    tasks[1].cancel()
    await asyncio.sleep(0)
    inside.leave.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[2]] == [10, 11]
    assert isinstance(results[1], asyncio.CancelledError)
    assert await added(db) == [10, 11]


async def test_cancelled_in_a_group_while_it_reads(db: SQLiteDatabase) -> None:
    """A statement that only reads is stopped at once: SQLite keeps the transaction."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        add(connection, 50)
        begun.set()
        connection.execute(ENDLESS)

    tasks: list[asyncio.Future[object]] = []
    async with turn_held(db):
        for fn in (lambda c: add(c, 10), count, lambda c: add(c, 11)):
            tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
            await asyncio.sleep(0)
    assert await asyncio.to_thread(begun.wait, 30)
    assert await cancelled(tasks[1])
    assert [await tasks[0], await tasks[2]] == [10, 11]
    assert await added(db) == [10, 11]


async def test_cancelled_in_a_group_while_it_writes(path: Path) -> None:
    """A long statement that writes comes to its end, and is rolled back alone."""
    sleeping = SleepingFunction()
    slowly = text(
        "WITH RECURSIVE n(i) AS (SELECT 1000 + sleep() UNION ALL SELECT i + 1 FROM n LIMIT 20000) "
        "INSERT INTO items (id, amount) SELECT i, 0 FROM n"
    )
    async with SQLiteDatabase(path, on_connect=sleeping.on_connect) as db:
        await create_items(db.writer_engine)
        tasks: list[asyncio.Future[Any]] = []
        async with turn_held(db):
            for fn in (lambda c: add(c, 10), lambda c: c.execute(slowly), lambda c: add(c, 11)):
                tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
                await asyncio.sleep(0)
        assert await asyncio.to_thread(sleeping.inside.wait, 30)
        tasks[1].cancel()
        await asyncio.sleep(0)
        sleeping.leave.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[0], results[2]] == [10, 11]
        assert isinstance(results[1], asyncio.CancelledError)
        assert await added(db) == [10, 11]


async def test_cancelled_twice(db: SQLiteDatabase) -> None:
    """A second cancellation does not shorten the wait for the end."""
    inside = Inside(bump)
    task = asyncio.ensure_future(db.run_write_core(inside))
    await inside.until_entered()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    inside.leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with db.read() as session:
        assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 0


async def test_a_function_that_does_not_come_back(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is left to itself after a while, and rolled back when it comes back: also where it executes
    nothing any more."""
    monkeypatch.setattr("sa_sqlite_pool.sessions.grouping._LET_GO_SECONDS", 0.01)

    def store(connection: Connection) -> None:
        add(connection, 10)
        inside(connection)

    inside = Inside()
    task = asyncio.ensure_future(db.run_write_core(store))
    await inside.until_entered()
    assert await cancelled(task)
    assert turn_of(path).holder is not None
    inside.leave.set()
    await until_free(path)
    assert await added(db) == []


async def test_a_reader_that_does_not_come_back(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same; its connection comes back with it."""
    monkeypatch.setattr("sa_sqlite_pool.driver.jobs._LET_GO_SECONDS", 0.01)
    inside = Inside()
    for _ in range(5):  # there are four readers
        inside = Inside()
        task = asyncio.ensure_future(db.run_read_core(inside))
        await inside.until_entered()
        assert await cancelled(task)
        inside.leave.set()
    assert await added(db) == []


async def test_settings_of_one_that_does_not_come_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is not kept for the next, if it has changed settings."""
    monkeypatch.setattr("sa_sqlite_pool.driver.jobs._LET_GO_SECONDS", 0.01)
    opened: list[sqlite3.Connection] = []
    inside = Inside()

    def change(connection: Connection) -> None:
        connection.execute(text("PRAGMA case_sensitive_like = ON"))
        inside(connection)

    def like(connection: Connection) -> int:
        return int(connection.execute(text("SELECT 'a' LIKE 'A'")).scalar_one())

    async with SQLiteDatabase(path, readers=1, on_connect=opened.append) as db:
        task = asyncio.ensure_future(db.run_read_core(change))
        await inside.until_entered()
        before = len(opened)
        assert await cancelled(task)
        inside.leave.set()
        assert await db.run_read_core(like) == 1
        assert len(opened) == before + 1


async def test_a_cancellation_during_the_commit(db: SQLiteDatabase, sent: Sent) -> None:
    """A COMMIT that was sent is known: the task is cancelled after it, and the row is there."""
    task = asyncio.ensure_future(db.run_write_core(add, 10))
    committing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note(statement: str) -> None:
        if statement == "COMMIT":
            loop.call_soon_threadsafe(task.cancel)
            loop.call_soon_threadsafe(committing.set)

    sent.append = note  # type: ignore[method-assign]
    async with db.writer_engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw._conn.set_trace_callback(note)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert committing.is_set()
    assert await added(db) == [10]


# -- time-outs ----------------------------------------------------------------------------------


async def test_write_timeout(path: Path) -> None:
    """Each waits for its own time, and never runs then; the error names who holds the turn."""
    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        async with db.write() as session:
            await session.execute(text("UPDATE items SET amount = 5 WHERE id = 2"))
            holder = asyncio.current_task()
            assert holder is not None
            results = await asyncio.gather(
                *(asyncio.create_task(db.run_write_core(add, key)) for key in (10, 11)),
                return_exceptions=True,
            )
            await until(lambda: turn_of(path).waiting == 0)
        for error in results:
            assert isinstance(error, WriteTimeout)
            assert "waited 0.05 s to write to app.db" in str(error)
            assert holder.get_name() in str(error)
            assert "UPDATE items" in str(error)
        assert await added(db) == []
        assert turn_of(path).waiting == 0


async def test_the_place_of_who_waits_on(path: Path) -> None:
    """Where the first of a group has waited long enough, the others keep its place in line."""
    order: list[int] = []

    def note(connection: Connection) -> None:
        order.append(add(connection, 11))

    async def session() -> None:
        async with db.write() as session:
            await session.execute(text("INSERT INTO items (id, amount) VALUES (12, 1)"))
            order.append(12)

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with turn_held(db):
            db._closures._groups.timeout = 0.02
            first = asyncio.ensure_future(db.run_write_core(add, 10))
            await asyncio.sleep(0)
            db._closures._groups.timeout = 30.0
            second = asyncio.ensure_future(db.run_write_core(note))
            await asyncio.sleep(0)
            third = asyncio.ensure_future(session())
            with pytest.raises(WriteTimeout):
                await first
        await asyncio.gather(second, third)
    assert order == [11, 12]


async def test_waiting_behind_a_function(path: Path) -> None:
    """Who waits for a function is told whose it is, and what it executed last."""
    inside = Inside()

    def store(connection: Connection) -> None:
        add(connection, 10)
        inside(connection)

    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        running = asyncio.create_task(db.run_write_core(store), name="import-42")
        await inside.until_entered()
        for waiting in (db.run_write_core(add, 11), _write(db)):
            with pytest.raises(WriteTimeout, match=r"import-42.*last SQL: INSERT INTO items"):
                await waiting
        inside.leave.set()
        await running


async def _write(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(text("UPDATE items SET amount = 0"))


async def test_a_task_that_holds_the_turn(db: SQLiteDatabase) -> None:
    """Would wait for itself, and is told at once."""
    async with db.write() as session:
        await session.execute(text("UPDATE items SET amount = 0"))
        with pytest.raises(TurnAlreadyHeldError, match="would wait for itself"):
            await db.run_write_core(bump)
    await db.run_write_core(bump)


async def test_again_right_after_a_cancellation(db: SQLiteDatabase) -> None:
    """A task whose call was cancelled may ask again, while its old group is still at work."""
    inside = Inside()

    async def twice() -> int:
        try:
            await db.run_write_core(add, 10)
        except asyncio.CancelledError:
            return await db.run_write_core(add, 11)
        raise AssertionError

    first = asyncio.ensure_future(db.run_write_core(inside))
    await inside.until_entered()
    task = asyncio.ensure_future(twice())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    inside.leave.set()
    assert await task == 11
    await first
    assert await added(db) == [11]


async def test_the_turn_is_the_groups(db: SQLiteDatabase, path: Path) -> None:
    """From the moment when it is handed over, whether at once or after a wait: a caller that is
    cancelled and asks again must not pass for the holder."""
    turn = turn_of(path)
    permit = turn.take_nowait()
    assert permit is not None
    waiting = asyncio.ensure_future(db.run_write_core(add, 10))
    await until_waiting(1, turn)
    turn.release(permit)
    assert _holder(path) == "group commit of app.db"
    await waiting
    await until_free(path)
    at_once = asyncio.ensure_future(db.run_write_core(add, 11))
    await until(lambda: turn.holder is not None)
    assert _holder(path) == "group commit of app.db"
    await at_once


def _holder(path: Path) -> str:
    holder = turn_of(path).holder
    assert holder is not None
    assert holder.task is not None
    return holder.task.get_name()


async def test_a_program_outside(path: Path) -> None:
    """SQLite's lock held by somebody else: tried for until the time is over; nothing has run."""
    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        outside = sqlite3.connect(path, isolation_level=None)
        outside.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriteTimeout, match=r"waited 0\.05 s.*outside this package"):
            await db.run_write_core(add, 10)
        outside.execute("COMMIT")
        outside.close()
        db._closures._groups.timeout = 30.0
        assert await db.run_write_core(add, 11) == 11
        assert await added(db) == [11]


async def test_answered_while_the_next_waits(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is answered may ask again at once, also while its group still waits for a lock."""
    monkeypatch.setattr("sa_sqlite_pool.driver.shared_transaction.MOST_WORK", 1)
    outside = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def take_lock(session: Session) -> None:
        session.add(Item(id=10))
        event.listen(session, "after_commit", lambda _: outside.execute("BEGIN IMMEDIATE"))

    async def twice() -> int:
        await db.run_write(take_lock)
        return await db.run_write_core(add, 12)

    async with turn_held(db):
        first = asyncio.ensure_future(twice())
        await asyncio.sleep(0)
        second = asyncio.ensure_future(db.run_write_core(add, 11))
        await asyncio.sleep(0)
    await until(lambda: turn_of(path).courtesy._met_at > 0)
    assert not first.done()
    outside.execute("COMMIT")
    outside.close()
    assert [await first, await second] == [12, 11]


async def test_a_program_outside_that_lets_go(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function runs once, as soon as the lock is free; the wait counts as left to others."""
    left: list[float] = []
    monkeypatch.setattr(Writing, "others_had_lock", lambda _, seconds: left.append(seconds))
    inside = Inside()
    inside.leave.set()
    outside = sqlite3.connect(path, isolation_level=None)
    outside.execute("BEGIN IMMEDIATE")
    task = asyncio.ensure_future(db.run_write_core(inside))
    await until(lambda: turn_of(path).courtesy._met_at > 0)
    outside.execute("COMMIT")
    outside.close()
    await task
    assert inside.runs == 1
    assert left


@pytest.mark.parametrize("option", [False, True])
async def test_statement_timeout(path: Path, option: bool) -> None:
    """For each statement in a function: the engine's, and the execution option of one."""
    engine_seconds, own = (None, 0.5) if option else (0.5, None)

    def count(connection: Connection) -> None:
        add(connection, 10)
        options = {} if own is None else {"statement_timeout": own}
        connection.execute(ENDLESS, execution_options=options)

    async with SQLiteDatabase(path, statement_timeout=engine_seconds) as db:
        await create_items(db.writer_engine)
        with pytest.raises(StatementTimeout, match=r"statement_timeout=0\.5 s: WITH RECURSIVE"):
            await db.run_write_core(count)
        assert await added(db) == []
        with pytest.raises(StatementTimeout):
            await db.run_read_core(
                lambda c: c.execute(ENDLESS, execution_options={"statement_timeout": 0.02}).all()
            )


async def test_the_time_limit_of_one_statement(db: SQLiteDatabase) -> None:
    """Is not that of the next."""

    def twice(connection: Connection) -> int:
        limited = {"statement_timeout": 0.001}
        connection.execute(text("SELECT 1"), execution_options=limited)
        return sum(connection.execute(LONG).scalar_one() for _ in range(2))

    assert await db.run_read_core(twice) == 200_000


async def test_a_hidden_statement_timeout(path: Path) -> None:
    """Of a write: SQLite has rolled back everything, and what follows is refused."""

    def fill(connection: Connection) -> None:
        with pytest.raises(StatementTimeout, match="rolled its transaction back"):
            connection.execute(ENDLESS_WRITE)
        add(connection, 10)

    async with SQLiteDatabase(path, statement_timeout=0.5) as db:
        await create_items(db.writer_engine)
        with pytest.raises(OperationalError, match="rolled this transaction back"):
            await db.run_write_core(fill)
        assert await added(db) == []


async def test_read_timeout(path: Path) -> None:
    """Who waits for a reader is told who has them."""
    async with SQLiteDatabase(path, readers=1, read_timeout=0.05) as db:
        await create_items(db.writer_engine)
        inside = Inside()
        running = asyncio.create_task(db.run_read_core(inside), name="report")
        await inside.until_entered()
        with pytest.raises(ReadTimeout, match="report"):
            await db.run_read_core(lambda _: None)
        inside.leave.set()
        await running


# -- close() ------------------------------------------------------------------------------------


async def test_closing_while_one_runs(db: SQLiteDatabase, path: Path) -> None:
    """Who has not begun is sent away at once; who runs may come to its end in time."""
    inside = Inside(lambda connection: add(connection, 10))
    tasks = [asyncio.ensure_future(db.run_write_core(inside))]
    await inside.until_entered()
    tasks.append(asyncio.ensure_future(db.run_write_core(add, 11)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(db.close())
    with pytest.raises(DatabaseClosedError, match="being closed"):
        await tasks[1]
    inside.leave.set()
    assert await tasks[0] == 10
    await closing
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT id FROM items WHERE id > 3").fetchall()
    connection.close()
    assert rows == [(10,)]


async def test_closing_those_in_line(db: SQLiteDatabase) -> None:
    """A group that stands in line is sent away as a whole."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(db.close(0))
        for task in tasks:
            with pytest.raises(DatabaseClosedError):
                await task
    await closing


@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_WRITE])
async def test_closing_stops_what_runs(db: SQLiteDatabase, sql: object) -> None:
    """After close_timeout its statement is stopped, and it is rolled back."""
    fn = Counting(sql)
    task = asyncio.ensure_future(db.run_write_core(fn))
    assert await asyncio.to_thread(fn.begun.wait, 30)
    began = time.monotonic()
    await db.close(0.05)
    assert time.monotonic() - began < 5
    with pytest.raises(OperationalError, match="was closed"):
        await task


async def test_closing_a_group(db: SQLiteDatabase) -> None:
    """What has run and is not committed is lost with what runs, and told so."""
    inside = Inside(lambda connection: add(connection, 11))
    async with turn_held(db):
        tasks: list[asyncio.Future[Any]] = []
        for fn in (lambda c: add(c, 10), inside):
            tasks.append(asyncio.ensure_future(db.run_write_core(fn)))
            await asyncio.sleep(0)
    await inside.until_entered()
    closing = asyncio.ensure_future(db.close(0.01))
    pool = db.writer_engine.pool
    assert isinstance(pool, FairPool)
    (loan,) = pool.loans
    await until(lambda: loan.connection is None or loan.connection.given_up)
    inside.leave.set()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(error, OperationalError)
        assert "was closed" in str(error)
    await closing


async def test_closing_stops_readers(db: SQLiteDatabase) -> None:
    """The same for functions that read."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        begun.set()
        connection.execute(ENDLESS)

    task = asyncio.ensure_future(db.run_read_core(count))
    assert await asyncio.to_thread(begun.wait, 30)
    await db.close(0.05)
    with pytest.raises(OperationalError, match="was closed"):
        await task


# -- loops --------------------------------------------------------------------------------------


async def test_the_leader_is_cancelled(db: SQLiteDatabase) -> None:
    """Somebody cancels all tasks that are not its own: those who still wait are served."""
    async with turn_held(db):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
        await asyncio.sleep(0)
        (leader,) = [t for t in asyncio.all_tasks() if t.get_name().startswith("group commit")]
        assert await cancelled(leader)
    assert await asyncio.gather(*tasks) == [10, 11]
    assert await added(db) == [10, 11]


def test_a_loop_that_ends_in_the_middle(path: Path) -> None:
    """What waits and what runs goes with its loop; the next loop finds the turn free."""
    inside = Inside()
    db = SQLiteDatabase(path)

    async def leave() -> None:
        await db.open()
        await create_items(db.writer_engine)
        for fn in (inside, lambda c: add(c, 10), lambda c: add(c, 11)):
            asyncio.ensure_future(db.run_write_core(fn))  # noqa: RUF006 - nobody waits
        await inside.until_entered()
        threading.Timer(0.05, inside.leave.set).start()

    async def go_on() -> None:
        assert await db.run_write_core(add, 12) == 12
        assert await added(db) == [12]
        await db.close()

    asyncio.run(leave())
    asyncio.run(go_on())


async def test_two_loops(db: SQLiteDatabase, path: Path, sent: Sent) -> None:
    """Each loop's functions have groups of their own, in one line."""
    others: list[int] = []

    def in_another_loop() -> None:
        async def run() -> None:
            others.extend(
                await asyncio.gather(*(db.run_write_core(add, key) for key in range(20, 25)))
            )

        asyncio.run(run())

    own, _ = await asyncio.gather(
        asyncio.gather(*(db.run_write_core(add, key) for key in range(10, 15))),
        asyncio.to_thread(in_another_loop),
    )
    assert (own, others) == (list(range(10, 15)), list(range(20, 25)))
    assert await added(db) == [*range(10, 15), *range(20, 25)]


async def test_a_function_that_computes_is_not_idle(db: SQLiteDatabase) -> None:
    """Between two statements it is at work: nobody is warned of it."""
    for engine, run in (
        (db.writer_engine, db.run_write_core),
        (db.reader_engine, db.run_read_core),
    ):
        inside = Inside()
        task = asyncio.ensure_future(run(inside))
        await inside.until_entered()
        assert isinstance(engine.pool, FairPool)
        (loan,) = engine.pool.loans
        assert loan.permit.idle_since is None
        inside.leave.set()
        await task


async def test_results_of_a_group_in_line(db: SQLiteDatabase, path: Path) -> None:
    """A task may call again as soon as it is answered: its turn is given back, not held."""

    async def thrice(start: int) -> list[int]:
        return [await db.run_write_core(add, start + step) for step in range(3)]

    results = await in_line(db, path, lambda: thrice(10), lambda: thrice(20))
    assert results == [[10, 11, 12], [20, 21, 22]]


async def test_nothing_is_left_of_a_group(db: SQLiteDatabase, path: Path) -> None:
    """No timer keeps what is over; the connection's last job does, until the next."""
    for key in range(10, 15):
        await db.run_write_core(add, key)
    await until_free(path)
    await asyncio.sleep(0)
    gc.collect()
    groups = [thing for thing in gc.get_objects() if isinstance(thing, Group)]
    assert sum(group._groups is db._closures._groups for group in groups) <= 1
