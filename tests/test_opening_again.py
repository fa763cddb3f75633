"""An ``open()`` or ``close()`` that fails, or is cancelled, leaves the database as it was."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.publishing.publisher import Publisher
from tests.helpers import driver, files_beside

MEMORY = Path(":memory:")


class FailsOnce:
    """An ``on_connect`` function that fails a given number of times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, _: sqlite3.Connection) -> None:
        if self.times:
            self.times -= 1
            raise ZeroDivisionError


async def works(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(text("CREATE TABLE notes (text)"))
    async with db.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM notes")) == 0


@pytest.mark.parametrize("memory", [True, False])
async def test_opened_again_after_an_error(path: Path, memory: bool) -> None:
    """An in-memory database still has its directory."""
    db = SQLiteDatabase(MEMORY if memory else path, on_connect=FailsOnce(1))
    with pytest.raises(ZeroDivisionError):
        await db.open()
    async with db:
        await works(db)


@pytest.mark.parametrize("memory", [True, False])
async def test_of_two_that_open_it_one_is_cancelled(path: Path, memory: bool) -> None:
    """The other one opens it."""
    db = SQLiteDatabase(MEMORY if memory else path)
    tasks = [asyncio.ensure_future(db.open()) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1] is db
    await works(db)
    await db.close()


async def test_of_two_that_open_it_one_fails_last(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that the other one has opened stays open, and published."""
    db = SQLiteDatabase(path)
    ended: list[object] = []
    monkeypatch.setattr(Publisher, "close", ended.append)
    opening, go_on = db._open_engines, asyncio.Event()
    first = True

    async def open_engines() -> None:
        nonlocal first
        if first:
            first = False
            await go_on.wait()
            raise ZeroDivisionError
        await opening()

    monkeypatch.setattr(db, "_open_engines", open_engines)
    failing = asyncio.ensure_future(db.open())
    await asyncio.sleep(0)
    await db.open()
    go_on.set()
    with pytest.raises(ZeroDivisionError):
        await failing
    assert not ended
    await works(db)
    monkeypatch.undo()
    await db.close()


async def test_a_directory_in_memory_goes_with_the_closing(path: Path) -> None:
    db = SQLiteDatabase(MEMORY)
    directory = Path(str(db.url.database)).parent
    async with db:
        await works(db)
        assert directory.exists()
    assert not directory.exists()


async def test_a_closing_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is raised, and the publication has ended nevertheless."""
    db = await SQLiteDatabase(path).open()
    dispose = db._dispose_engines

    async def fail() -> None:
        await dispose()
        raise ZeroDivisionError

    monkeypatch.setattr(db, "_dispose_engines", fail)
    with pytest.raises(ZeroDivisionError):
        await db.close()
    assert "closed" in repr(db)
    assert db._publisher is not None
    assert db._publisher._server is None


async def test_a_listener_that_fails_keeps_no_other_connection_open(path: Path) -> None:
    """Connections of the same engine and of the other one are closed."""
    db = await SQLiteDatabase(path, readers=3).open()
    engines = (db.writer_engine, db.reader_engine)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(db.reader_engine.connect())
    closed: list[Any] = []

    def fail(connection: object, _: object) -> None:
        closed.append(connection)
        if len(closed) == 1:
            raise ZeroDivisionError

    for engine in engines:
        event.listen(engine.sync_engine, "close", fail)
    with pytest.raises(ZeroDivisionError):
        await db.close()
    assert len(closed) == 4
    assert all(engine.pool.at_rest == 0 for engine in engines)  # type: ignore[attr-defined]
    closed[0].give_up("its listener has failed", keep=False)


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError()])
async def test_closed_while_it_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """An error at that moment, for example a missing in-memory directory, reports the closing."""
    db = SQLiteDatabase(path)

    async def open_engines() -> None:
        await db.close()
        raise error

    monkeypatch.setattr(db, "_open_engines", open_engines)
    if isinstance(error, Exception):
        with pytest.raises(DatabaseClosedError, match="was closed") as raised:
            await db.open()
        assert raised.value.__cause__ is error
    else:
        with pytest.raises(asyncio.CancelledError):
            await db.open()


def test_closed_where_no_loop_runs(path: Path) -> None:
    """This raises an error and closes nothing; a later close() in a loop does not wait for it."""
    db = SQLiteDatabase(path)
    asyncio.run(db.open())
    closing = db.close()
    with pytest.raises(RuntimeError, match="no running event loop"):
        closing.send(None)

    async def go_on() -> None:
        await works(db)
        await asyncio.wait_for(db.close(), 30)

    asyncio.run(go_on())
    assert "closed" in repr(db)


@pytest.mark.needs_thread
async def test_disposed_of_by_two_tasks_at_the_same_time(path: Path) -> None:
    """By a failed open() and by close(): no connection stays open in a pool that none of them has.

    One               | Other             | Task
    closes            |                   |
                      | another pool      |
                      |                   | opens a connection there, and returns it
    a third pool      |                   |
    """
    db = await SQLiteDatabase(path).open()
    async with db.writer_engine.connect() as connection:
        slow = (await driver(connection)).worker
    gate = threading.Event()
    slow.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
    disposing = [asyncio.create_task(db._dispose()) for _ in range(2)]
    for _ in range(50):
        await asyncio.sleep(0)
    async with db.writer_engine.connect() as connection:
        late = (await driver(connection)).worker
    gate.set()
    await asyncio.gather(*disposing)
    assert slow.closed
    assert late.closed
    await db.close()
    assert files_beside(path) == {"app.db"}


@pytest.mark.parametrize("keep_wal", [False, True])
async def test_closed_after_its_writer(path: Path, keep_wal: bool) -> None:
    """The last reader cannot remove the log, and it is removed all the same."""
    db = await SQLiteDatabase(path, keep_wal=keep_wal).open()
    await works(db)
    await db.writer_engine.dispose()
    await db.close()
    log = {"app.db-wal", "app.db-shm"} if keep_wal else set()
    assert files_beside(path) == {"app.db"} | log


async def test_closed_after_its_writer_was_lost(path: Path) -> None:
    """The application has closed the writer's own connection, and another process reads."""
    db = await SQLiteDatabase(path).open()
    await works(db)
    other = sqlite3.connect(path)
    other.execute("SELECT * FROM notes").fetchall()
    async with db.writer_engine.connect() as connection:
        await (await driver(connection)).worker.close()
    await db.close()
    assert "app.db-wal" in files_beside(path)
    other.close()
    assert files_beside(path) == {"app.db"}
