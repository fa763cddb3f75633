"""The copy of the SQLite file from which rows are read, in blocks."""

from __future__ import annotations

import secrets
import sqlite3
import string
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, final

from ..backup.copy_job import closed_file, connected
from ..database import SQLiteDatabase
from ..execution.connection_thread import ConnectionThread
from ..files.urls import locate

Row = tuple[Any, ...]

# Of Python objects, which then fit a processor's cache: larger blocks take twice the time per row.
# The next block, which is being read, is in memory, too.
BLOCK_BYTES = 512 * 1024
BLOCK_ROWS = 1024
# Fetched at once after rows that were small: as many large ones may follow.
_STEP_ROWS = 32
_VALUE_BYTES = 40  # of an object without its content, and its place in a row
_WITHOUT_CONTENT = {int, float, type(None)}
_FOLDS = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@asynccontextmanager
async def snapshot(
    db: SQLiteDatabase, progress: Callable[[int, int], object]
) -> AsyncIterator[ConnectionThread]:
    """Open a consistent copy of the database within the block; the application can keep writing.

    A process that is killed while it makes the copy leaves what a killed backup leaves.
    """
    with _free_name(db) as path:
        await db.backup(path, progress=progress)
        async with connected(closed_file(str(path)), None) as worker:
            await worker.run(_open)
            await worker.run(lambda _: _remove(path))  # it stays open: a kill leaves nothing
            yield worker


@contextmanager
def _free_name(db: SQLiteDatabase) -> Iterator[Path]:
    """Yield a name for a copy: beside the database, where there is room for it, if possible."""
    beside = locate(db.writer_engine.url).file
    if beside is None or not _takes_files(Path(beside).parent):
        with tempfile.TemporaryDirectory(
            prefix="sa_sqlite_pool-copy-", ignore_cleanup_errors=True
        ) as directory:
            yield Path(directory) / "snapshot.db"
        return
    path = Path(f"{beside}.copy-{secrets.token_hex(4)}")
    try:
        yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # gone already; or open, on Windows
        path.unlink()


def _takes_files(directory: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _open(connection: sqlite3.Connection) -> None:
    # Otherwise, SQLite opens the file only at the first read.
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def folded(name: str) -> str:
    """Return a name as SQLite compares it: ``É`` and ``é`` are two names."""
    return name.translate(_FOLDS)


def read_any_text(connection: sqlite3.Connection) -> None:
    """Make texts that are not UTF-8 readable, with lone surrogates in place of invalid bytes."""
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")


def read_texts(connection: sqlite3.Connection) -> None:
    """Make texts that are not UTF-8 raise an error; no Python function is called for each text."""
    connection.text_factory = str


def is_not_utf8(error: sqlite3.OperationalError) -> bool:
    """Return whether a text could not be read (``Modules/_sqlite/cursor.c`` in CPython)."""
    return "Could not decode to UTF-8" in str(error)


@final
class Rows:
    """The rows of one query, in blocks that are about the same size in memory.

    They are used in the thread of the connection. ``most`` is the largest number of rows in a
    block. A row that is larger than a block becomes a block of its own.
    """

    def __init__(self, connection: sqlite3.Connection, sql: str) -> None:
        self._cursor = connection.execute(sql)
        self._step = 1
        self._left: list[Row] = []  # fetched, but not in a block yet
        self.most = 0

    def next(self) -> list[Row]:
        """Return the next block; it is empty at the end."""
        block: list[Row] = []
        room = BLOCK_BYTES
        while len(block) < BLOCK_ROWS and (rows := self._some(BLOCK_ROWS - len(block))):
            used = _bytes_of(rows)
            if used > room:
                fit = max(_fitting(rows, room), 0 if block else 1)
                block += rows[:fit]
                self._left = rows[fit:]
                break
            block += rows
            room -= used
            self._step = min(2 * self._step, _STEP_ROWS)
        self.most = max(self.most, len(block))
        return block

    def _some(self, most: int) -> list[Row]:
        """Return the rows that are left, or fetch more: one at a time after a large row."""
        rows, self._left = self._left, []
        if rows:
            self._step = 1
            return rows
        return self._cursor.fetchmany(min(self._step, most))


def columns_of(rows: Sequence[Row]) -> list[Row]:
    """Return the columns of a block that is not empty."""
    return list(zip(*rows, strict=True))


def _bytes_of(rows: Sequence[Row]) -> int:
    """Return approximately how much memory rows take; some texts have several bytes a character."""
    used = len(rows) * len(rows[0]) * _VALUE_BYTES
    for values in zip(*rows, strict=False):
        if type(values[0]) not in _WITHOUT_CONTENT:
            with suppress(TypeError):  # numbers or NULLs are among them
                used += sum(map(len, values))
                continue
        elif _WITHOUT_CONTENT.issuperset(map(type, values)):
            continue
        used += sum(map(sys.getsizeof, values))
    return used


def _fitting(rows: Sequence[Row], room: int) -> int:
    """Return how many of the rows fit into ``room``."""
    for place, row in enumerate(rows):
        room -= _bytes_of([row])
        if room < 0:
            return place
    return len(rows)
