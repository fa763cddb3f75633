"""A database with a log, other connections that use it, and the checkpointer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.files.log_file import LogSize, measure
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer

FIRST_FRAME = 32 + 24 + 4096
ROWS, BYTES = 100, 2000


def connect(path: Path) -> sqlite3.Connection:
    """Connect like other programs, without waiting for locks or checkpointing the log."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


class Database:
    """A database with ``ROWS`` rows in the log, and none in the database file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.other = connect(path)
        self.other.execute("PRAGMA page_size = 4096")
        self.other.execute("PRAGMA journal_mode = WAL")
        self.other.execute("CREATE TABLE t (data BLOB)")
        self.other.execute("PRAGMA user_version = 77")
        self.other.execute("PRAGMA application_id = 78")
        self.other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.empty = self.file_size
        self.add(ROWS)

    def add(self, rows: int = 1) -> None:
        insert = "INSERT INTO t VALUES (randomblob(?))"
        for _ in range(rows):
            self.other.execute(insert, [BYTES])

    @property
    def rows(self) -> int:
        return int(self.other.execute("SELECT count(*) FROM t").fetchone()[0])

    @property
    def file_size(self) -> int:
        """Return the size of the database file without opening it: closing it would drop locks."""
        return self.path.stat().st_size

    @property
    def nothing_moved(self) -> bool:
        return self.file_size == self.empty

    @property
    def log(self) -> LogSize:
        return measure(f"{self.path}-wal")

    def reader(self) -> sqlite3.Connection:
        """Return a reader of the current state, with its transaction open."""
        reader = connect(self.path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchone()
        return reader

    def everything(self) -> list[object]:
        """Return all the content that a user can see."""
        found: list[object] = list(self.other.execute("SELECT rowid, data FROM t ORDER BY rowid"))
        for pragma in ("user_version", "application_id", "schema_version", "integrity_check"):
            found += self.other.execute(f"PRAGMA {pragma}").fetchone()
        return found

    def assert_free(self) -> None:
        """Check that others can write at once, and read everything that was committed."""
        with closing(connect(self.path)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            stranger.execute("INSERT INTO t VALUES (1)")
            stranger.execute("ROLLBACK")
            assert stranger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            busy, _, _ = stranger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert busy == 0
            assert self.rows == ROWS


async def open_checkpointer(path: Path) -> Checkpointer:
    location = Location.parse(str(path), uri=False).with_parameter("mode", "rw")
    checkpointer = Checkpointer(location, {"synchronous": "OFF"})
    try:
        await checkpointer.open()
    except BaseException:
        await checkpointer.close()
        raise
    return checkpointer


def lock_of(checkpointer: Checkpointer) -> ConnectionThread:
    """Return the second connection of the checkpointer."""
    return checkpointer._workers[1]
