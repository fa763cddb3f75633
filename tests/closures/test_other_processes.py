"""The turn between processes, and locks held by others, in relation to functions."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from sa_sqlite_pool import ReadTimeout, SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.transactions import locks
from tests.closures.work import Inside, Sent, add, added, in_line
from tests.helpers import Item, create_items, turn_of, until
from tests.turn.locks import Calls, calls, is_free, other_process

__all__ = ["calls"]


async def test_a_group_takes_the_file_once(db: SQLiteDatabase, path: Path, calls: Calls) -> None:
    """All of them together need two system calls."""
    before = calls.count
    await in_line(db, path, *(partial(db.run_write_core, add, key) for key in range(10, 20)))
    assert calls.count == before + 2


async def test_given_back_right_after_the_commit(db: SQLiteDatabase, path: Path) -> None:
    """Other processes do not wait for SQLAlchemy's work after the commit."""
    free: list[bool] = []

    def store(session: Session, key: int) -> None:
        session.add(Item(id=key))
        session.flush()
        assert not is_free(path)
        event.listen(session, "after_commit", lambda _: free.append(is_free(path)))

    await in_line(db, path, partial(db.run_write, store, 10), partial(db.run_write, store, 11))
    assert free == [True, True]


async def test_another_process_has_the_turn(db: SQLiteDatabase, path: Path, sent: Sent) -> None:
    """The calls wait for it together and share a transaction, and none is lost."""
    with other_process(path):
        tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11, 12)]
        await until(lambda: turn_of(path).holder is not None)
        await until(lambda: turn_of(path).holder.waits_for is not None)  # type: ignore[union-attr]
        assert "BEGIN IMMEDIATE" not in sent
    assert await asyncio.gather(*tasks) == [10, 11, 12]
    assert sent.starting("COMMIT") == 1
    assert is_free(path)


async def test_waited_too_long_for_another_process(path: Path) -> None:
    """The error names the process; nothing has run, and nothing is held."""
    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        message = r"waited 0\.05 s .*; another process holds the turn"
        with other_process(path), pytest.raises(WriteTimeout, match=message):
            await db.run_write_core(add, 10)
        db._closures._writes.timeout = 30.0
        assert await db.run_write_core(add, 11) == 11
        assert await added(db) == [11]
        await until(lambda: is_free(path))


@pytest.mark.parametrize("cancelled", [1, 2])
async def test_cancelled_while_another_process_has_it(
    db: SQLiteDatabase, path: Path, cancelled: int
) -> None:
    """If one of a group is cancelled, the others continue; if all are, it leaves the line."""
    with other_process(path):
        tasks = [asyncio.ensure_future(db.run_write_core(add, 10 + i)) for i in (0, 1)]
        await until(lambda: getattr(turn_of(path).holder, "waits_for", None) is not None)
        for task in tasks[:cancelled]:
            task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[:cancelled])
    assert results[cancelled:] == [10, 11][cancelled:]
    assert await db.run_write_core(add, 12) == 12
    assert await added(db) == [10, 11, 12][cancelled:]
    await until(lambda: is_free(path))


async def test_recalled_while_another_process_has_it(
    db: SQLiteDatabase, path: Path, sent: Sent
) -> None:
    """The connection then belongs to another user, so nothing is executed on it."""
    pool = db.writer_engine.pool
    assert isinstance(pool, FairPool)
    with other_process(path):
        task = asyncio.ensure_future(db.run_write_core(add, 10))
        await until(lambda: getattr(turn_of(path).holder, "waits_for", None) is not None)
        pool.recall("it was recalled")
    with pytest.raises(sqlite3.OperationalError, match="it was recalled"):
        await task
    assert not sent.starting("BEGIN")
    assert await added(db) == []


# -- without WAL --------------------------------------------------------------------------------


@pytest.fixture
async def journal(path: Path) -> Any:
    async with SQLiteDatabase(
        path, pragmas={"journal_mode": "TRUNCATE"}, write_timeout=10, read_timeout=10
    ) as db:
        await create_items(db.writer_engine)
        yield db


async def test_a_commit_waits_for_readers(journal: SQLiteDatabase) -> None:
    """It is retried in its thread until they have ended, and is then acknowledged."""
    inside = Inside()

    def read_and_stay(connection: Any) -> None:
        connection.execute(text("SELECT * FROM items")).all()
        inside(connection)

    reading = asyncio.ensure_future(journal.run_read_core(read_and_stay))
    await inside.until_entered()
    writing = asyncio.ensure_future(journal.run_write_core(add, 10))
    new_reader = asyncio.ensure_future(added(journal))
    inside.leave.set()
    await reading
    assert await writing == 10
    assert await new_reader in ([], [10])
    assert await added(journal) == [10]


async def test_a_commit_that_readers_keep_waiting(path: Path) -> None:
    """Its time-out names the reader; nothing is kept, and no transaction stays open."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            await session.execute(text("SELECT * FROM items"))
            with pytest.raises(WriteTimeout, match=r"to commit to app\.db.*held open for"):
                await asyncio.create_task(db.run_write_core(add, 10))
        db._closures._writes.timeout = 30.0
        assert await db.run_write_core(add, 11) == 11
        assert await added(db) == [11]


async def test_a_reader_waits_for_a_lock(
    journal: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits before the function runs, which runs once."""
    tried = asyncio.Event()

    async def pause() -> None:
        tried.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(locks, "pause", pause)
    inside = Inside()
    inside.leave.set()
    outside = sqlite3.connect(path, isolation_level=None)
    outside.execute("BEGIN EXCLUSIVE")
    reading = asyncio.ensure_future(journal.run_read_core(inside))
    await tried.wait()
    assert inside.runs == 0
    outside.execute("COMMIT")
    outside.close()
    await reading
    assert inside.runs == 1


async def test_a_reader_that_waits_too_long(path: Path) -> None:
    """The time-out names the obstacle."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}, read_timeout=0.05) as db:
        await create_items(db.writer_engine)
        await db.run_read_core(lambda _: None)
        outside = sqlite3.connect(path, isolation_level=None)
        outside.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ReadTimeout, match=r"waited 0\.05 s to read"):
            await db.run_read_core(lambda _: None)
        outside.close()
