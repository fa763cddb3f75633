"""Settings that a function changes by SQL, as sessions of ``db.read()`` and ``db.write()`` may."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures import early_end, thread_connection
from sa_sqlite_pool.transactions.locks import pause_here
from tests.closures.work import add, added
from tests.helpers import create_items, driver


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return another database, with a row."""
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("INSERT INTO notes VALUES ('there')")
        connection.commit()
    return path


def attach(connection: Connection, path: Path) -> None:
    connection.execute(text("ATTACH :path AS other"), {"path": str(path)})


def read_attached(connection: Connection, path: Path) -> list[Any]:
    attach(connection, path)
    return list(connection.execute(text("SELECT text FROM other.notes")).scalars())


def write_attached(connection: Connection, path: Path) -> None:
    connection.execute(text("INSERT INTO other.notes VALUES ('new')"))


async def test_attached_on_a_reader(one: SQLiteDatabase, other: Path) -> None:
    """The file is read-only, as in db.read()."""
    assert await one.run_read_core(read_attached, other) == ["there"]
    with pytest.raises(Exception, match=r"a reader of app\.db cannot change a database: INSERT"):
        await one.run_read_core(write_attached, other)


async def test_a_reader_attaches_no_new_file(one: SQLiteDatabase, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nor create a file: let the writer attach it first"):
        await one.run_read_core(attach, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def attach_and_write(connection: Connection, path: Path) -> None:
    attach(connection, path)
    write_attached(connection, path)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 does not say if a wait can help")
async def test_the_lock_on_an_attached_file(
    db: SQLiteDatabase, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function waits for it, as SQLite does on a stock engine."""
    tried = threading.Event()

    def pause() -> None:
        tried.set()
        pause_here()

    monkeypatch.setattr(thread_connection, "pause_here", pause)
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as outside:
        outside.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(db.run_write_core(attach_and_write, other))
        assert await asyncio.to_thread(tried.wait, 30)
        outside.execute("COMMIT")
        await writing
        assert outside.execute("SELECT count(*) FROM notes").fetchone() == (2,)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 does not say if a wait can help")
async def test_the_wait_for_it_is_no_run_of_the_statement(
    path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement has its whole statement_timeout even after a longer wait."""
    waited = 0.0

    class Clock:
        perf_counter = time.perf_counter

        def monotonic(self) -> float:
            return time.monotonic() + waited

    def fill(connection: Connection) -> None:
        attach(connection, other)
        sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
        connection.execute(text(f"INSERT INTO other.notes {sql} SELECT i FROM n"))

    with contextlib.closing(
        sqlite3.connect(other, isolation_level=None, check_same_thread=False)
    ) as outside:

        def pause() -> None:
            nonlocal waited
            waited += 1000.0
            outside.execute("COMMIT")

        monkeypatch.setattr(thread_connection, "pause_here", pause)
        monkeypatch.setattr(thread_connection, "time", Clock())
        monkeypatch.setattr(early_end, "time", Clock())
        async with SQLiteDatabase(path, statement_timeout=100.0) as db:
            outside.execute("BEGIN IMMEDIATE")
            await db.run_write_core(fill)
        assert waited == 1000.0


async def test_the_lock_on_an_attached_file_that_stays(path: Path, other: Path) -> None:
    """The wait is limited; a file attached twice blocks itself, which is reported at once."""
    async with SQLiteDatabase(path, write_timeout=0.05) as db:
        await create_items(db.writer_engine)
        with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as outside:
            outside.execute("BEGIN IMMEDIATE")
            with pytest.raises(OperationalError, match="database is locked"):
                await db.run_write_core(attach_and_write, other)
    async with SQLiteDatabase(path) as db:

        def attach_own_and_write(connection: Connection) -> None:
            attach(connection, path)
            connection.execute(text("INSERT INTO other.items (id, amount) VALUES (9, 1)"))

        with pytest.raises(OperationalError, match="OwnLockError"):
            await db.run_write_core(attach_own_and_write)


async def test_the_busy_timeout(db: SQLiteDatabase) -> None:
    """It is remembered and reported, and SQLite itself never waits."""

    def set_and_ask(connection: Connection) -> int:
        connection.execute(text("PRAGMA busy_timeout = 1500"))
        answer: int = connection.execute(text("PRAGMA busy_timeout")).scalar_one()
        return answer

    assert await db.run_write_core(set_and_ask) == 1500
    async with db.writer_engine.connect() as connection:
        sqlite = (await driver(connection)).worker.connection
        assert sqlite.execute("PRAGMA busy_timeout").fetchone() == (0,)
        assert await connection.scalar(text("PRAGMA busy_timeout")) == 1500


def have_begin_compiled_again(connection: Connection) -> None:
    """Make SQLite recompile BEGIN, which then includes the attached file."""
    assert connection.connection.driver_connection is not None


async def test_an_attached_file_that_is_not_used(path: Path, other: Path) -> None:
    """A transaction locks only its own file, so another program may lock the attached one."""
    async with SQLiteDatabase(path, write_timeout=0.5) as db:
        await create_items(db.writer_engine)
        await db.run_write_core(attach, other)
        await db.run_write_core(have_begin_compiled_again)
        with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as outside:
            outside.execute("BEGIN IMMEDIATE")
            assert await db.run_write_core(add, 10) == 10
        await db.run_write_core(write_attached, other)
        assert await added(db) == [10]
