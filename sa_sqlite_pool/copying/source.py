"""The copy of the SQLite file that is read, and its rows in blocks."""

from __future__ import annotations

import itertools
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, final

from ..backup.backup import closed_file, connected
from ..database import SQLiteDatabase
from ..execution.connection_thread import ConnectionThread
from ..files.urls import locate

Row = tuple[Any, ...]

# Of Python's objects, as far as a processor's cache: larger blocks take twice the time a row. The
# next block, which is being read, is in memory, too.
BLOCK_BYTES = 512 * 1024
BLOCK_ROWS = 1024
_FIRST_ROWS = 1
_SAMPLED = 8  # one row in so many is measured


@asynccontextmanager
async def snapshot(
    db: SQLiteDatabase, progress: Callable[[int, int], object]
) -> AsyncIterator[ConnectionThread]:
    """Open a consistent copy of the database within the block: the application writes on."""
    with tempfile.TemporaryDirectory(
        prefix="sa_sqlite_pool-copy-", dir=_directory(db), ignore_cleanup_errors=True
    ) as directory:
        path = Path(directory) / "snapshot.db"
        await db.backup(path, progress=progress)
        async with connected(closed_file(str(path)), None) as worker:
            await worker.run(_open)
            await worker.run(lambda _: _take_names_away(path))
            yield worker


def _take_names_away(path: Path) -> None:
    """Remove the file, which stays open: so nothing is left even if this process is killed."""
    with suppress(OSError):  # Windows keeps the name of an open file
        path.unlink()
        path.parent.rmdir()


def _directory(db: SQLiteDatabase) -> Path | None:
    """Return the place of the database, where there is room for such files, or None."""
    file = locate(db.writer_engine.url).file
    if file is None:
        return None
    try:
        with tempfile.TemporaryFile(dir=Path(file).parent):
            return Path(file).parent
    except OSError:
        return None


def _open(connection: sqlite3.Connection) -> None:
    # Or the file is opened at its first read.
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def quoted(name: str) -> str:
    """Return a name as SQLite takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def read_any_text(connection: sqlite3.Connection) -> None:
    """Let texts that are not UTF-8 be read, with lone surrogates in the place of wrong bytes."""
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")


def read_texts(connection: sqlite3.Connection) -> None:
    """Let texts that are not UTF-8 raise: no function in Python is called for each text."""
    connection.text_factory = str


def is_not_utf8(error: sqlite3.OperationalError) -> bool:
    """Return whether a text could not be read (``Modules/_sqlite/cursor.c`` in CPython)."""
    return "Could not decode to UTF-8" in str(error)


@final
class Rows:
    """The rows of one query, in blocks that are about the same size in memory.

    Used in the thread of the connection. ``most`` is the largest number of rows fetched at once.
    """

    def __init__(self, connection: sqlite3.Connection, sql: str) -> None:
        self._cursor = connection.execute(sql)
        self._size = _FIRST_ROWS
        self.most = 0

    def next(self) -> list[Row]:
        """Return the next block; it is empty at the end."""
        rows = self._cursor.fetchmany(self._size)
        self.most = max(self.most, len(rows))
        if rows:
            sample = rows[::_SAMPLED]
            used = sum(map(sys.getsizeof, itertools.chain.from_iterable(sample)))
            wanted = BLOCK_BYTES * len(sample) // used
            self._size = max(1, min(wanted, 4 * self._size, BLOCK_ROWS))
        return rows

    def close(self) -> None:
        """End the query."""
        self._cursor.close()


def columns_of(rows: Sequence[Row]) -> list[Row]:
    """Return the columns of a block that is not empty."""
    return list(zip(*rows, strict=True))
