"""Statements whose rows are fetched on demand, as tracked by a connection."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, Protocol, final

from ..execution.replies import Parameters, Reply, Row, calls_driver

CLOSED = "the cursor is closed"
GIVEN_BACK = (
    "this stream was closed when its connection returned to the pool, as happens when a session "
    "commits, rolls back or closes, and at the end of a connection's block; read it to the end "
    "first, or stream on a separate connection: async with engine.connect()"
)
TOO_OLD = "this stream was closed because its snapshot was too old and was ended"


class RunsBriefly(Protocol):
    """The interface for closing a stream in a thread that may use its connection."""

    def run_briefly(self, call: Callable[[], Any]) -> Any: ...


@final
class _Rows:
    """Fetched rows, in place of the cursor from which they were read."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[Row]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> Row | None:
        return next(self._rows, None)

    def fetchmany(self, size: int) -> list[Row]:
        return list(islice(self._rows, size))

    def fetchall(self) -> list[Row]:
        return list(self._rows)

    def close(self) -> None:
        self._rows = iter(())


@final
class OpenStream:
    """A statement from which rows are fetched; it keeps its snapshot as long as it is open.

    While open, it is registered in ``streams`` of its connection, so that it is closed in a thread
    that may use the connection, even after ``owner``, the cursor that fetches, has been freed.
    """

    __slots__ = ("_cursor", "_error", "_owner", "_streams", "_why_closed", "sql")

    def __init__(self, sql: str, owner: object, streams: set[OpenStream]) -> None:
        self.sql = sql
        self._cursor: Any = None  # sqlite3's, or the rows that were read from it
        self._owner = weakref.ref(owner)
        self._streams = streams
        self._why_closed = CLOSED
        self._error: type[sqlite3.Error] = sqlite3.ProgrammingError

    @calls_driver
    def open(self, connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        """Execute the statement, for the first time or again. Runs in the connection's thread.

        The stream is registered there, so that it is known even if the waiting task is cancelled.
        """
        if self._cursor is not None:
            self._cursor.close()
        cursor = connection.cursor()
        cursor.execute(sql, parameters)
        self._cursor = cursor
        self._streams.add(self)
        return Reply([], cursor.description, cursor.rowcount, cursor.lastrowid)

    @calls_driver
    def read_on(self) -> None:
        """Read all rows now, and end the statement. Runs in the connection's thread.

        A statement that writes in AUTOCOMMIT holds SQLite's lock until its end. Its rows need no
        more memory than SQLite has already used: "all database modifications are made … prior to
        generating any RETURNING output" (https://www.sqlite.org/lang_returning.html).
        """
        cursor = self._cursor
        try:
            self._cursor = _Rows(cursor.fetchall())
        finally:
            cursor.close()

    @property
    def cursor(self) -> Any:
        """The open cursor; raises an error with the reason if it was closed."""
        if self._cursor is None:
            raise self._error(self._why_closed)
        return self._cursor

    @property
    def abandoned(self) -> bool:
        """True if nothing can fetch from the stream any more."""
        return self._owner() is None

    def detach(
        self, why: str = CLOSED, error: type[sqlite3.Error] = sqlite3.ProgrammingError
    ) -> sqlite3.Cursor | None:
        """Detach and return the open cursor, for the caller to close; None if there is none.

        Later fetches raise ``error(why)``.
        """
        cursor: sqlite3.Cursor | None = self._cursor
        self._cursor = None
        if cursor is not None:
            self._why_closed, self._error = why, error
            self._streams.discard(self)
        return cursor

    def close(self, runner: RunsBriefly, why: str = CLOSED) -> None:
        """Close the cursor, which releases the snapshot that the open statement holds.

        If the connection is given up meanwhile, or the task is cancelled, the stream stays
        registered with the connection, whose thread closes it. Here the cursor would be freed while
        that thread runs: ``sqlite3`` would wait for SQLite's mutex, holding the interpreter lock.
        """
        if self._cursor is not None:
            runner.run_briefly(partial(self._close, why))

    def _close(self, why: str) -> None:
        if (cursor := self.detach(why)) is not None:
            cursor.close()


def close_abandoned(streams: set[OpenStream]) -> None:
    """Close streams whose cursor was freed. Runs in a thread that may use the connection."""
    for stream in [stream for stream in streams if stream.abandoned]:
        stream._close(CLOSED)
