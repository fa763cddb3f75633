"""The lock on a database that stays when SQLite's own locks are dropped."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import sa_sqlite_pool
from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.files.descriptors import descriptor_of
from sa_sqlite_pool.files.lasting_lock import LastingLocks
from sa_sqlite_pool.files.open_files import open_files
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, write
from tests.wal.facade import pragma, said
from tests.wal.lasting import WORKER, drop_locks, families, found, log_of, update_elsewhere
from tests.wal.others import OtherProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such locks")


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def is_open(path: Path) -> bool:
    file = path.stat()
    return descriptor_of(file.st_dev, file.st_ino) is not None


async def update(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)


# -- nothing is lost, and nothing refused ----------------------------------------------------------


async def test_another_program_leaves_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It finds that the database is in use, and the commits here are seen everywhere."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        for term in range(3):
            drop_locks(path)
            update_elsewhere(path)
            assert log_of(path).exists()
            await write(db)
            assert (await amounts(db.reader_engine))[0] == found(path) == 2 * (term + 1)
    assert not log_of(path).exists()
    assert said(caplog) == []


async def test_the_index_of_the_log(path: Path) -> None:
    """If a copy of the directory drops its locks, other programs do not begin another one.

    They would empty it, and the next use of it here would kill the process (SIGBUS).
    """
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        index = index_of(path)
        for term in range(3):
            for name in (path, log_of(path), index):
                drop_locks(name)
            assert families(index) == ["OFDLCK"]
            update_elsewhere(path)
            await write(db)
            assert (await amounts(db.reader_engine))[0] == found(path) == 2 * (term + 1)
    assert not index.exists()


@pytest.mark.parametrize("door", ["pool", "drop-in", "two engines"])
async def test_every_door(path: Path, make_engine: MakeEngine, door: str) -> None:
    engine: AsyncEngine
    if door == "drop-in":
        engine = sa_sqlite_pool.create_async_engine(f"sqlite+aiosqlite:///{path}")
    else:
        engine = make_engine(SQLitePool if door == "pool" else WriterPool)
    await create_items(engine)
    drop_locks(path)
    update_elsewhere(path)
    await update(engine)
    assert found(path) == 2
    if door == "two engines":
        readers = make_engine(ReaderPool)
        assert (await amounts(readers))[0] == 2
        await readers.dispose()
        assert "OFDLCK" in families(path)
    await engine.dispose()
    assert not log_of(path).exists()
    assert not is_open(path)


async def test_commits_while_the_log_is_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers have lost their locks; one has checked its log, and commits, when it goes.

    Another program has opened the database again before either of them notices.
    """
    with OtherProcess(path, WORKER) as worker, ExitStack() as stack:
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine)
            assert worker.execute(str(UPDATE_FIRST)) == "committed"
            check = type(open_files).assert_may_commit

            def check_and_lose(self: object, connection: object) -> None:
                monkeypatch.undo()
                check(open_files, connection)
                drop_locks(path)
                assert worker.execute("drop") == "dropped"
                update_elsewhere(path, "SELECT * FROM items")
                plain = stack.enter_context(OtherProcess(path))
                assert plain.execute("SELECT amount FROM items WHERE id = 1") == "[(1,)]"

            monkeypatch.setattr(type(open_files), "assert_may_commit", check_and_lose)
            await write(db)
            assert worker.execute(str(UPDATE_FIRST)) == "committed"
            await write(db)
            assert found(path) == 4


# -- what is innocent ------------------------------------------------------------------------------


async def test_several_connections_and_threads(path: Path) -> None:
    """The lock is held until the last of them is closed, and then nothing stays open."""
    async with SQLiteDatabase(path, readers=3) as db, SQLiteDatabase(path, readers=3) as other:
        await create_items(db.writer_engine)
        for term in range(3):
            async with db.read() as first, other.read() as second:
                await first.execute(text("SELECT 1"))
                await second.execute(text("SELECT * FROM items"))
            await db.reader_engine.dispose()
            await (db, other)[term % 2].writer_engine.dispose()
            drop_locks(path)
            update_elsewhere(path)
            await write(other)
            assert found(path) == 2 * (term + 1)
    assert not log_of(path).exists()
    assert not is_open(path)
    assert families(path) == []


async def test_a_connection_that_is_not_known_here(path: Path) -> None:
    """The close of the lock's descriptor would drop that connection's own locks."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        unknown = sqlite3.connect(path, isolation_level=None)
        unknown.execute("SELECT * FROM items").fetchall()
    assert families(path) == ["POSIX"]
    update_elsewhere(path)
    assert log_of(path).exists()
    async with SQLiteDatabase(path) as db:
        assert families(path) == ["OFDLCK", "POSIX"]
        unknown.execute(str(UPDATE_FIRST))
        unknown.close()
        await write(db)
        assert found(path) == 3
    assert not is_open(path)
    assert not log_of(path).exists()


@pytest.mark.parametrize("sql", ["journal_mode = DELETE", "locking_mode = EXCLUSIVE"])
async def test_one_connection_alone(make_engine: MakeEngine, path: Path, sql: str) -> None:
    """It can have the file for itself, as with the stock driver."""
    for engine in (
        create_async_engine(f"sqlite+aiosqlite:///{path}-stock"),
        make_engine(SQLitePool),
    ):
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            await connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
            await connection.commit()
        async with engine.connect() as connection:
            value = (await connection.exec_driver_sql(f"PRAGMA {sql}")).scalar()
            assert value == sql.rpartition(" ")[2].lower()
            await connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            await connection.commit()
        await engine.dispose()


async def test_a_mode_that_is_left_in_vain(path: Path) -> None:
    """The lock is there again."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        with OtherProcess(path) as other:
            other.execute("SELECT * FROM items")
            with pytest.raises(exc.OperationalError, match="database is locked"):
                await pragma(db, "journal_mode = DELETE")
        assert "OFDLCK" in families(path)


async def test_without_a_log(path: Path) -> None:
    """A commit has to lock these bytes for itself there."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}) as db:
        await create_items(db.writer_engine)
        await write(db)
        assert "OFDLCK" not in families(path)
        update_elsewhere(path)
        await write(db)
        assert found(path) == 3


async def test_a_child_process(path: Path) -> None:
    """It has none of the descriptors, and the parent keeps its lock."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            await session.execute(text("SELECT * FROM items"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # other threads run
                child = os.fork()
            if child == 0:
                os._exit(0 if open_files._locks._opened == {} else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            drop_locks(path)
            update_elsewhere(path)
            assert log_of(path).exists()
        await write(db)
        assert found(path) == 2


@pytest.mark.parametrize("refuse", ["fcntl", "open"])
async def test_a_system_without_such_locks(
    path: Path, monkeypatch: pytest.MonkeyPatch, refuse: str
) -> None:
    """Everything works as without the lock."""

    def refused(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    name = {"fcntl": "_set", "open": "_open"}[refuse]
    monkeypatch.setattr(f"sa_sqlite_pool.files.lasting_lock.{name}", refused)
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await write(db)
        assert "OFDLCK" not in families(path)
    assert not log_of(path).exists()
    assert not is_open(path)
    assert found(path) == 1


def test_a_file_that_was_replaced(path: Path) -> None:
    """Its descriptor stays until nothing else has it open, and locks nothing."""
    lasting = LastingLocks()

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        lasting.hold(str(path))
        return connection

    old = connect()
    moved = path.rename(path.with_name("old.db"))
    for name in (log_of(path), index_of(path)):
        name.unlink()
    new = connect()
    assert families(moved) == ["POSIX"]
    assert families(path) == families(index_of(path)) == ["OFDLCK", "POSIX"]
    lasting.close_unused()
    assert families(moved) == ["POSIX"]
    old.close()
    lasting.release(str(path))
    new.close()
    lasting.close_unused()
    assert not is_open(moved)
    assert not is_open(path)
