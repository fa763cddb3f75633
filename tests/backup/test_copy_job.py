"""SQLite's backup API, as this package uses it."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import DatabaseNotUsableError
from sa_sqlite_pool.backup.copy_job import CopyJob
from sa_sqlite_pool.backup.page_copy import check_not_locked, is_readable, take_alone, write_over
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.wal.one_checkpoint import connect


def make(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id)")


async def test_a_lock_is_not_waited_for(path: Path, tmp_path: Path) -> None:
    """Python would retry without end."""
    make(path)
    make(tmp_path / "locked.db")
    worker = await ConnectionThread.open(Location(str(path)).sqlite_uri, None)
    locked = Location(str(tmp_path / "locked.db"))
    try:
        with closing(connect(locked)) as other, closing(connect(locked)) as target:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                await worker.run(
                    lambda source: write_over(
                        source, target, 10, worker, lambda copied, total: None
                    )
                )
    finally:
        await worker.close()


def test_alone_is_alone(path: Path) -> None:
    """The lock is held from the check of the journal mode to the close, in any journal mode."""
    for mode in ("wal", "delete", "wal"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            connection.execute("CREATE TABLE IF NOT EXISTS t (id)")
        alone = sqlite3.connect(path, isolation_level=None)
        with closing(alone), closing(sqlite3.connect(path, timeout=0)) as other:
            assert take_alone(alone) == mode
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("SELECT * FROM t")


def test_a_target_that_cannot_be_opened(tmp_path: Path) -> None:
    """It is not reported as in use or as no database: SQLite's own error names the problem."""
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        check_not_locked(tmp_path / "missing" / "copy.db")


def test_a_database_that_is_locked_is_not_damaged(path: Path) -> None:
    """Its readability is unknown, not false, or a restore would put it aside as damaged."""
    make(path)
    location = Location(str(path))
    with closing(connect(location)) as holder, closing(connect(location)) as other:
        assert is_readable(other)
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            is_readable(other)


def test_a_file_of_another_kind_is_not_readable(path: Path) -> None:
    """A restore replaces such a file."""
    path.write_bytes(b"no database" * 1000)
    with closing(connect(Location(str(path)))) as connection:
        assert not is_readable(connection)


async def test_errors_of_the_system_are_sqlalchemy_s(path: Path) -> None:
    """`except SQLAlchemyError` catches a full disk, for example, with the action and the cause."""
    make(path)
    worker = await ConnectionThread.open(Location(str(path)).sqlite_uri, None)

    def fail(_: sqlite3.Connection) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    try:
        with pytest.raises(DBAPIError, match="No space left on device") as raised:
            await CopyJob("backup(copy.db)", "copy.db was not made").run(worker, fail)
    finally:
        await worker.close()
    assert isinstance(raised.value.orig, DatabaseNotUsableError)
    assert isinstance(raised.value.__cause__, OSError)
    assert "copy.db was not made" in str(raised.value)
