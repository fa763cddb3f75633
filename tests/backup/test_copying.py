"""SQLite's backup API, as it is used here."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool.backup.copying import take_alone, write_over
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.wal.checkpoints import connect


def make(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id)")


async def test_a_lock_is_not_waited_for(path: Path, tmp_path: Path) -> None:
    """Python would try again without end."""
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
    """From the look at the journal mode to the close, and in whatever mode it was."""
    for mode in ("wal", "delete", "wal"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            connection.execute("CREATE TABLE IF NOT EXISTS t (id)")
        alone = sqlite3.connect(path, isolation_level=None)
        with closing(alone), closing(sqlite3.connect(path, timeout=0)) as other:
            assert take_alone(alone) == mode
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("SELECT * FROM t")
