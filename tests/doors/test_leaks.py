"""Connections that are never returned, and holders that do nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sqlite3
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool, WriteTimeout
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, driver, turn_of, until, until_free

DOORS = {"swap-in": SQLitePool, "writer": WriterPool}


def checkouts(engine: AsyncEngine) -> int:
    assert isinstance(engine.pool, FairPool)
    return len(engine.pool.checkouts)


@pytest.fixture(autouse=True)
def collected_when_asked() -> Iterator[None]:
    """Let the garbage collector run only when a test calls it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def collected(match: str) -> None:
    """Collect garbage, which makes SQLAlchemy warn and name the line of the checkout."""
    with pytest.warns(SAWarning, match=match):
        gc.collect()
    await asyncio.sleep(0)


@pytest.mark.parametrize("door", DOORS)
async def test_a_leaked_write_is_rolled_back(
    path: Path, make_engine: MakeEngine, door: str
) -> None:
    """The turn passes on, the same connection is used again, and the warning names the line."""
    opened: list[sqlite3.Connection] = []
    engine = make_engine(DOORS[door], on_connect=opened.append)
    await create_items(engine)

    async def leak() -> None:
        connection = await engine.connect()
        await connection.execute(UPDATE_FIRST)

    await leak()
    await collected(r"SQLiteConnection app\.db.*, checked out at test_leaks\.py:\d+>")
    await until_free(path)
    await until(lambda: checkouts(engine) == 0)
    assert await amounts(engine) == [0, 0, 0]
    assert len(opened) == 1


async def test_a_leaked_session_of_the_facade(path: Path) -> None:
    """The writer in line behind the leaked session is served."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)

        async def leak() -> None:
            session = db.sessionmaker(role="writer")
            await session.execute(UPDATE_FIRST)

        async def write() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        await leak()
        task = asyncio.create_task(write())
        await until(lambda: turn_of(path).waiting == 1)
        await collected("checked out at test_leaks.py")
        await task
        assert await amounts(db.reader_engine) == [1, 0, 0]


def abandoned() -> Any:
    """Expect SQLAlchemy's warning, which names the line of the checkout."""
    return pytest.warns(SAWarning, match=r"checked out at test_leaks\.py")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("door", ["facade", "swap-in", "writer"])
async def test_what_an_ended_task_has_lost_is_found_by_the_next_in_line(
    path: Path, make_engine: MakeEngine, door: str, fails: bool
) -> None:
    """It is found at once, although the permit refers to the task, and its error to the session."""
    async with SQLiteDatabase(path, write_timeout=5.0) as db:
        await create_items(db.writer_engine)
        engine = db.writer_engine if door == "facade" else make_engine(DOORS[door])

        async def leak() -> None:
            session = AsyncSession(engine)
            await session.execute(UPDATE_FIRST)
            if fails:
                raise ZeroDivisionError

        task = asyncio.create_task(leak(), name="import-42")
        await asyncio.wait([task])
        assert (task.exception() is not None) == fails
        del task
        with abandoned():
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)
        assert await amounts(db.reader_engine) == [1, 0, 0]


@pytest.mark.parametrize("door", ["facade", "swap-in", "writer"])
async def test_what_a_failed_task_has_lost_comes_back_with_the_garbage(
    path: Path, make_engine: MakeEngine, door: str
) -> None:
    """It does as on stock if no task waits: its permits keep neither the task nor its frames."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        engine = db.writer_engine if door == "facade" else make_engine(DOORS[door])

        async def leak() -> None:
            session = AsyncSession(engine)
            await session.execute(UPDATE_FIRST)
            raise ZeroDivisionError

        task = asyncio.create_task(leak(), name="import-42")
        await asyncio.wait([task])
        assert "'import-42' (which has ended, having requested it at test" in repr(turn_of(path))
        assert isinstance(task.exception(), ZeroDivisionError)
        del task
        await collected(r"checked out at test_leaks\.py")
        await until(lambda: checkouts(engine) == 0)
        await until_free(path)


async def test_what_an_ended_task_has_passed_on_is_left_alone(path: Path) -> None:
    """A session may be opened in one task and used in another: a fixture, a dependency.

    Setup       | Test             | Another
    UPDATE      |                  |
    (ends)      |                  |
                | (holds it)       | waits for the turn, in vain
                | UPDATE, COMMIT   |
                |                  | UPDATE, COMMIT
    """
    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)

        async def set_up() -> AsyncSession:
            session = db.sessionmaker(role="writer")
            await session.execute(UPDATE_FIRST)
            return session

        async def write() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        session = await asyncio.create_task(set_up(), name="set-up")
        for _ in range(2):
            with pytest.raises(WriteTimeout, match=r"task 'set-up' \(which has ended, having"):
                await asyncio.create_task(write())
        await session.execute(UPDATE_FIRST)
        await session.commit()
        await asyncio.create_task(write())
        assert await amounts(db.reader_engine) == [3, 0, 0]


async def test_one_collection_for_a_permit_that_was_passed_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One per holder, however many wait in line; none while all holders are running."""
    collections: list[int] = []
    async with SQLiteDatabase(path, write_timeout=0.01) as db:
        await create_items(db.writer_engine)
        monkeypatch.setattr("sa_sqlite_pool.turn.fair_semaphore.gc.collect", collections.append)

        async def set_up() -> AsyncSession:
            session = db.sessionmaker(role="writer")
            await session.execute(UPDATE_FIRST)
            return session

        async def write() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        async def fail_to_write() -> None:
            with pytest.raises(WriteTimeout):
                await write()

        async with await set_up():  # in this task, which is running
            await asyncio.create_task(fail_to_write())
        assert collections == []
        async with await asyncio.create_task(set_up()):
            for _ in range(3):
                await asyncio.create_task(fail_to_write())
        assert collections == [0, 1, 2]


async def test_a_leaked_stream(make_engine: MakeEngine) -> None:
    """Its open statement is closed; the snapshot ends and the connection can be kept."""
    opened: list[sqlite3.Connection] = []
    await create_items(make_engine(WriterPool))
    engine = make_engine(ReaderPool, on_connect=opened.append, pool_size=1)

    async def leak() -> None:
        connection = await engine.connect()
        result = await connection.stream(text("SELECT id FROM items"))
        await result.fetchmany(1)

    await leak()
    await collected("checked out at test_leaks.py")
    assert await amounts(engine) == [0, 0, 0]
    assert len(opened) == 1


async def test_a_detached_connection_keeps_the_turn_until_it_is_closed(
    path: Path, writer: AsyncEngine
) -> None:
    """The connection can still write, so no other task may meanwhile."""
    await create_items(writer)
    connection = await writer.connect()
    raw = await connection.get_raw_connection()
    raw.detach()
    await connection.execute(UPDATE_FIRST)
    assert turn_of(path).holder is not None
    await connection.commit()
    assert turn_of(path).holder is not None
    await connection.close()
    await until_free(path)
    assert await amounts(writer) == [1, 0, 0]


async def test_a_leaked_detached_connection(path: Path, writer: AsyncEngine) -> None:
    """SQLAlchemy no longer looks after a detached connection, but the package does."""
    await create_items(writer)

    async def leak() -> None:
        connection = await writer.connect()
        raw = await connection.get_raw_connection()
        raw.detach()
        await connection.execute(UPDATE_FIRST)

    await leak()
    with pytest.warns(ResourceWarning, match=r"checked out at test_leaks.*was never closed"):
        gc.collect()
    await until_free(path)
    assert await amounts(writer) == [0, 0, 0]


async def test_an_engine_that_is_never_disposed_of(path: Path) -> None:
    """Its connections are closed nevertheless, with a warning that names them."""

    async def use() -> threading.Thread:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
        async with engine.connect() as connection:
            raw = await driver(connection)
            return raw.worker.aiosqlite_connection._thread

    thread = await use()
    with pytest.warns(ResourceWarning, match=r"<SQLiteConnection app\.db, at rest> was never"):
        gc.collect()
    await until(lambda: not thread.is_alive())


# -- idle holders --------------------------------------------------------------------------------


class Records(logging.Handler):
    """A handler that records the package's log messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.WARNING
        self.messages.append(record.getMessage())


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture(autouse=True)
def _listening(records: Records) -> object:
    logger = logging.getLogger("sa_sqlite_pool")
    logger.addHandler(records)
    yield
    logger.removeHandler(records)


async def test_an_idle_writer_is_named_once(
    path: Path, swap_in: AsyncEngine, records: Records
) -> None:
    """The log names the task, its idle time, both of its lines, its last SQL, and how many wait."""
    done = asyncio.Event()
    await create_items(swap_in)
    async with SQLiteDatabase(path, idle_warning=0.02) as db:

        async def hold() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)
                await done.wait()

        async def write() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        holder = asyncio.create_task(hold(), name="import-42")
        waiter = asyncio.create_task(write())
        await until(lambda: records.messages)
        assert isinstance(db.writer_engine.pool, FairPool)
        db.writer_engine.pool._idle_watch.look()  # again, without another message
        waiter.cancel()
        done.set()
        await asyncio.gather(holder, waiter, return_exceptions=True)
    (message,) = records.messages
    assert re.match(r"SQLite: the write turn of app.db has been idle for \d+\.\d s", message)
    assert "task 'import-42' (now at test_leaks.py:" in message
    assert "last SQL: UPDATE items" in message
    assert "requested at test_leaks.py:" in message
    assert "1 more waiting in line" in message


async def test_an_idle_reader_is_named(path: Path, records: Records) -> None:
    """A session that a streaming response pins keeps the log from shrinking."""
    async with SQLiteDatabase(path, idle_warning=0.02) as db, db.read() as session:
        await session.execute(text("SELECT 1"))
        await until(lambda: records.messages)
    assert records.messages[0].startswith("SQLite: a transaction of app.db has been idle")


async def test_a_long_reader_may_be_idle(path: Path, records: Records) -> None:
    """A reader declared as long is no idle holder; the log's keeper reports it where necessary."""
    async with SQLiteDatabase(path) as db:
        pool = db.reader_engine.pool
        assert isinstance(pool, ReaderPool)
        for long in (True, False):
            async with db.read(long=long) as session:
                await session.execute(text("SELECT 1"))
                (checkout,) = pool.checkouts
                checkout.permit.idle_since = 0.0  # for a very long time
                pool._idle_watch.look()
                assert len(records.messages) == (0 if long else 1)


async def test_who_works_or_holds_nothing_is_not_named(
    make_engine: MakeEngine, records: Records
) -> None:
    """A long statement is no idling, nor is a swap-in connection without a transaction."""
    engine = make_engine(SQLitePool, idle_warning=0.02)
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000000) "
        "SELECT count(*) FROM n"
    )
    async with engine.connect() as idle, engine.connect() as busy:
        await idle.execute(text("SELECT 1"))
        await busy.execution_options(sqlite_role="reader")
        await busy.execute(text(slow))
        await busy.rollback()
    assert records.messages == []


async def test_idle_warnings_can_be_switched_off(path: Path, records: Records) -> None:
    """With None, there is no timer at all."""
    async with SQLiteDatabase(path, idle_warning=None) as db, db.write() as session:
        await session.execute(text("SELECT 1"))
        assert isinstance(db.writer_engine.pool, FairPool)
        assert db.writer_engine.pool._idle_watch.loop is None
    assert records.messages == []


async def test_the_watch_sleeps_when_nothing_is_on_loan(path: Path) -> None:
    """A single timer runs while there are checkouts, and the next checkout restarts it."""
    async with SQLiteDatabase(path, idle_warning=0.02) as db:
        assert isinstance(db.writer_engine.pool, FairPool)
        watch = db.writer_engine.pool._idle_watch
        await until(lambda: watch.loop is None)
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            assert watch.loop is asyncio.get_running_loop()
        await until(lambda: watch.loop is None)


def test_warnings_of_leaks_are_errors_here() -> None:
    """This file runs with warnings as errors; otherwise the tests above would prove less."""
    with pytest.raises(SAWarning), warnings.catch_warnings():
        warnings.warn("leak", SAWarning, stacklevel=1)
