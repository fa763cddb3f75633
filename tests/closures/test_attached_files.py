"""Functions that write to attached files: the logs of those files stay small."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.transactions import attached as attached_files
from sa_sqlite_pool.turn.lock_file import lock_file
from tests.helpers import create_items, turn_of

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
