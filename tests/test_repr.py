"""The repr of pools, turns and similar objects shows their state."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, text

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from tests.conftest import MakeEngine
from tests.helpers import turn_of, until_waiting


async def test_pools(make_engine: MakeEngine) -> None:
    """It has the number of connections that are lent, and of those at rest."""
    engine = make_engine(SQLitePool)
    assert "0 checked out, 0 at rest, 0 waiting" in repr(engine.pool)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        expected = "<SQLitePool app.db, 1 checked out, 0 at rest, 0 waiting>"
        assert repr(engine.pool) == expected
    assert repr(engine.pool) == "<SQLitePool app.db, 0 checked out, 1 at rest, 0 waiting>"


async def test_who_waits_for_a_reader(path: Path, make_engine: MakeEngine) -> None:
    """It has the number of tasks in line."""
    async with SQLiteDatabase(path):
        engine = make_engine(ReaderPool, pool_size=1)
        async with engine.connect():
            pool = engine.pool
            task = asyncio.ensure_future(anext_connection(engine))
            while pool.waiting != 1:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            assert repr(pool) == "<ReaderPool app.db, 1 checked out, 0 at rest, 1 waiting>"
        await task


async def anext_connection(engine: object) -> None:
    async with engine.connect():  # type: ignore[attr-defined]
        pass


async def test_the_turn(path: Path) -> None:
    """It names the holder, its current line, and the number of waiting tasks."""
    async with SQLiteDatabase(path) as db:
        turn = turn_of(path)
        assert repr(turn) == "<WriteTurn app.db, free, 0 waiting>"
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            other = asyncio.ensure_future(db.run_write_core(lambda _: None))
            await until_waiting(1, turn)
            assert re.fullmatch(
                r"<WriteTurn app\.db, held for \d\.\d s by task 'Task-\d+' \(now at "
                r"test_repr\.py:\d+, last SQL: SELECT 1\), 1 waiting>",
                repr(turn),
            )
        await other


def test_primitives() -> None:
    """It has the number of permits that are held, and of all permits."""
    assert repr(FairSemaphore(3)) == "<FairSemaphore 0 of 3 held, 0 waiting>"
    assert repr(turn_of(Path("/data/app.db"))) == "<WriteTurn app.db, free, 0 waiting>"


async def test_the_keeper(path: Path) -> None:
    """It names the next thing that is due."""
    async with SQLiteDatabase(path) as db:
        assert repr(db._keeper) == "<WalKeeper app.db, nothing due>"


async def test_what_a_task_awaits(path: Path) -> None:
    """The repr of a task shows whether a thread is at work for it; a call that waits is pending."""
    async with SQLiteDatabase(path, readers=1) as db:
        begun, ends = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            begun.set()
            ends.wait(60)

        async with db.reader_engine.connect() as connection:
            statement = asyncio.create_task(connection.run_sync(in_thread, hold))
            assert await asyncio.to_thread(begun.wait, 60)
            assert "wait_for=<Job running>" in repr(statement)
            call = asyncio.create_task(db.run_read_core(lambda _: None))
            await asyncio.sleep(0)
            assert "wait_for=<Call pending>" in repr(call)
            ends.set()
            await statement
        await call


def in_thread(connection: Connection, function: Callable[[object], None]) -> None:
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, SQLiteConnection)
    driver.executor.run_in_thread(lambda: function(None))
