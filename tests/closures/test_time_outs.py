"""Time-outs of functions: for their waits, and for their statements."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sa_sqlite_pool import (
    ReadTimeout,
    SQLiteDatabase,
    StatementTimeout,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from sa_sqlite_pool.transactions.writing import Writing
from tests.closures.work import (
    ENDLESS_WRITE,
    LONG,
    Inside,
    add,
    added,
    bump,
    turn_held,
)
from tests.helpers import (
    ENDLESS,
    Item,
    create_items,
    turn_of,
    until,
    until_free,
    until_waiting,
)


async def test_write_timeout(path: Path) -> None:
    """Each has its own time limit, and does not run later; the error names the turn's holder."""
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
    """If the first of a group has waited too long, the others keep its place in line."""
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
            db._closures._writes.timeout = 0.02
            first = asyncio.ensure_future(db.run_write_core(add, 10))
            await asyncio.sleep(0)
            db._closures._writes.timeout = 30.0
            second = asyncio.ensure_future(db.run_write_core(note))
            await asyncio.sleep(0)
            third = asyncio.ensure_future(session())
            with pytest.raises(WriteTimeout):
                await first
        await asyncio.gather(second, third)
    assert order == [11, 12]


async def test_waiting_behind_a_function(path: Path) -> None:
    """The error names the task whose function is waited for, and its last SQL."""
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
    """It would wait for itself, and gets the error at once."""
    async with db.write() as session:
        await session.execute(text("UPDATE items SET amount = 0"))
        with pytest.raises(TurnAlreadyHeldError, match="would wait for itself"):
            await db.run_write_core(bump)
    await db.run_write_core(bump)


async def test_again_right_after_a_cancellation(db: SQLiteDatabase) -> None:
    """A task whose call was cancelled may call again while its old group is still working."""
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
    """This holds from the grant on, whether at once or after a wait: a caller that is cancelled and
    calls again must not be mistaken for the holder."""
    turn = turn_of(path)
    permit = turn.acquire_nowait()
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
    """SQLite's lock is retried until the time has passed, and nothing has run."""
    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        outside = sqlite3.connect(path, isolation_level=None)
        outside.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriteTimeout, match=r"waited 0\.05 s.*another connection.* holds"):
            await db.run_write_core(add, 10)
        outside.execute("COMMIT")
        outside.close()
        db._closures._writes.timeout = 30.0
        assert await db.run_write_core(add, 11) == 11
        assert await added(db) == [11]


async def test_answered_while_the_next_waits(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller may call again at once, even while its group still waits for a lock."""
    monkeypatch.setattr("sa_sqlite_pool.closures.shared_transaction.MOST_WORK", 1)
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
    """The engine's limit and the execution option apply to each statement in a function."""
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
    """It does not apply to the next statement."""

    def twice(connection: Connection) -> int:
        limited = {"statement_timeout": 0.001}
        connection.execute(text("SELECT 1"), execution_options=limited)
        return sum(connection.execute(LONG).scalar_one() for _ in range(2))

    assert await db.run_read_core(twice) == 200_000


async def test_a_hidden_statement_timeout(path: Path) -> None:
    """For a write, SQLite has rolled back everything, and further statements are refused."""

    def fill(connection: Connection) -> None:
        with pytest.raises(StatementTimeout, match="rolled back its transaction"):
            connection.execute(ENDLESS_WRITE)
        add(connection, 10)

    async with SQLiteDatabase(path, statement_timeout=0.5) as db:
        await create_items(db.writer_engine)
        with pytest.raises(OperationalError, match="rolled back this transaction"):
            await db.run_write_core(fill)
        assert await added(db) == []


async def test_read_timeout(path: Path) -> None:
    """The error for a task that waits for a reader names the holders."""
    async with SQLiteDatabase(path, readers=1, read_timeout=0.05) as db:
        await create_items(db.writer_engine)
        inside = Inside()
        running = asyncio.create_task(db.run_read_core(inside), name="report")
        await inside.until_entered()
        with pytest.raises(ReadTimeout, match="report"):
            await db.run_read_core(lambda _: None)
        inside.leave.set()
        await running
