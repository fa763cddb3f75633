"""Functions that write to attached files: the logs of those files stay small."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures import shared_transaction
from sa_sqlite_pool.execution import jobs
from sa_sqlite_pool.transactions import attached as attached_files
from sa_sqlite_pool.transactions.attached import AttachedFiles
from sa_sqlite_pool.turn.lock_file import lock_file
from tests.closures.work import in_line
from tests.helpers import create_items, turn_of, until

ROW = text("INSERT INTO other.notes VALUES (zeroblob(50000))")


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(attached_files, "_LARGE_LOG", 100_000)
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE notes (body)")
    return path


@pytest.fixture
async def db(path: Path, other: Path) -> AsyncIterator[SQLiteDatabase]:
    def attach(connection: sqlite3.Connection) -> None:
        connection.execute("ATTACH ? AS other", (str(other),))
        connection.execute("ATTACH ? AS again", (str(path),))

    async with SQLiteDatabase(path, on_connect=attach) as db:
        await create_items(db.writer_engine)
        yield db


def write(connection: Connection) -> None:
    connection.execute(ROW)


async def test_a_large_log_is_moved(db: SQLiteDatabase, other: Path) -> None:
    """The log restarts each time, as ten times its limit were written."""
    for _ in range(20):
        await db.run_write_core(write)
    assert Path(f"{other}-wal").stat().st_size < 300_000
    assert other.stat().st_size > 700_000
    assert turn_of(other).holder is None


async def test_in_the_turn_of_that_file(db: SQLiteDatabase, other: Path) -> None:
    """It does not happen while another task holds that turn, but later: commits could be lost."""
    turn = turn_of(other)
    permit = await turn.acquire(1)
    for _ in range(10):
        await db.run_write_core(write)
    assert Path(f"{other}-wal").stat().st_size > 500_000
    assert other.stat().st_size < 100_000
    turn.release(permit)
    await db.run_write_core(write)
    assert other.stat().st_size > 500_000


async def test_in_the_turn_between_processes(db: SQLiteDatabase, other: Path) -> None:
    """The same applies if another process has locked the file of the turn."""
    turn = turn_of(other)
    turn.share()
    lock = lock_file(f"{other}-turn", str(other))
    assert lock.acquire_nowait()
    for _ in range(10):
        await db.run_write_core(write)
    assert other.stat().st_size < 100_000
    assert turn.holder is None
    lock.release()
    await db.run_write_core(write)
    assert other.stat().st_size > 500_000


async def test_where_its_turn_cannot_be_taken(
    db: SQLiteDatabase, path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no error of functions that wait in line behind those that have written."""
    monkeypatch.setattr(shared_transaction, "MOST_WORK", 1)
    Path(f"{other}-turn").mkdir()
    calls = [partial(db.run_write_core, write)] * 6
    assert await in_line(db, path, *calls) == [None] * 6
    assert other.stat().st_size < 100_000
    Path(f"{other}-turn").rmdir()
    await db.run_write_core(write)
    await until(lambda: other.stat().st_size > 300_000)
    await until(lambda: turn_of(other).holder is None)


async def test_a_leader_that_is_cancelled_there(
    db: SQLiteDatabase, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is given back when the checkpoint has ended, and not before."""
    monkeypatch.setattr(jobs, "_LET_GO_SECONDS", 0)
    running, go_on = threading.Event(), threading.Event()
    look, turn = AttachedFiles.look_at_logs, turn_of(other)

    def look_slowly(self: AttachedFiles, connection: object) -> None:
        if self.held:
            running.set()
            go_on.wait(10)
        look(self, connection)

    def leaders() -> list[asyncio.Task[object]]:
        return [task for task in asyncio.all_tasks() if "group commit" in task.get_name()]

    monkeypatch.setattr(AttachedFiles, "look_at_logs", look_slowly)
    while not running.is_set():
        await db.run_write_core(write)
        await until(lambda: running.is_set() or not leaders())
    (leader,) = leaders()
    leader.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert turn.holder is not None
    go_on.set()
    await asyncio.wait([leader])
    assert turn.holder is None
