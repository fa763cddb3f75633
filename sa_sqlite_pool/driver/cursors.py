"""PEP 249 cursors that need one hop: execute, fetch, description, row count, close in one job.

They are instances of SQLAlchemy's own cursor classes, as listeners expect, but share only the
public names with them: SQLAlchemy's cursors need five hops through aiosqlite for the same work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar, final

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_ss_cursor,
)
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

from ..execution.replies import Execute, Parameters, Reply, Row, calls_driver, execute_at_once
from ..transactions.streams import OpenStream

C = TypeVar("C", bound="_AdaptedCursor")
T = TypeVar("T")


class StatementRunner(Protocol):
    """The interface that a cursor needs: the executor of its connection."""

    @property
    def statement_timeout(self) -> float | None: ...

    def run_statement(
        self,
        sql: str,
        parameters: Any,
        execute: Execute,
        *,
        atomic: bool = False,
        stream: bool = False,
        timeout: float | None = None,
    ) -> Reply: ...

    def run_in_thread(self, call: Callable[[], Any], *, timeout: float | None = None) -> Any: ...

    def run_briefly(self, call: Callable[[], Any]) -> Any: ...


@calls_driver
def _execute_many(
    connection: sqlite3.Connection, sql: str, parameters: Sequence[Parameters]
) -> Reply:
    cursor = connection.cursor()
    try:
        cursor.executemany(sql, parameters)
        return Reply([], None, cursor.rowcount, cursor.lastrowid)
    finally:
        cursor.close()


@calls_driver
def _fetch(fetch: Callable[..., T], *args: int) -> T:
    return fetch(*args)


_NO_ROWS: Iterator[Row] = iter(())


# For each subclass of _AdaptedCursor: a class cannot have two bases that both have slots.
_SLOTS: Final = ("_runner", "arraysize", "description", "lastrowid", "rowcount", "timeout")
_NO_SLOTS: Final = ()


class _AdaptedCursor:
    """The attributes and methods of both kinds of cursor."""

    __slots__ = _NO_SLOTS

    description: Any
    rowcount: int
    lastrowid: Any
    arraysize: int
    timeout: float | None
    _adapt_connection: Any
    _rows: Any
    _runner: StatementRunner

    await_ = staticmethod(await_only)  # as in SQLAlchemy 2.0

    def __init__(self, connection: AdaptedConnection, runner: StatementRunner) -> None:
        self._adapt_connection = connection
        self._runner = runner
        self._rows = _NO_ROWS
        self.arraysize = 1
        self.description = None
        self.rowcount = -1
        self.lastrowid = None
        self.timeout = runner.statement_timeout

    @property
    def _connection(self) -> Any:
        """The raw connection, under the name that SQLAlchemy's cursors use."""
        return self._adapt_connection._connection

    def executemany(self, operation: str, seq_of_parameters: Sequence[Parameters]) -> None:
        # The statement may have to be retried, and an iterator would be empty then.
        rows = seq_of_parameters if isinstance(seq_of_parameters, list) else [*seq_of_parameters]
        reply = self._runner.run_statement(
            operation, rows, _execute_many, atomic=True, timeout=self.timeout
        )
        self._rows, self.description = _NO_ROWS, None
        self.rowcount = reply.rowcount
        self.lastrowid = reply.lastrowid

    def setinputsizes(self, *inputsizes: Any) -> None:
        """Do nothing, as PEP 249 allows."""

    def nextset(self) -> NoReturn:
        """Raise the same error as aiosqlite: "if the database does not support …" (PEP 249)."""
        raise AttributeError("an SQLite statement has only one result set: there is no nextset()")

    if TYPE_CHECKING:  # defined by each kind of cursor

        def close(self) -> None: ...

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class Cursor(_AdaptedCursor, AsyncAdapt_aiosqlite_cursor):  # type: ignore[override]
    """A cursor that has fetched all rows when ``execute()`` returns.

    ``timeout`` is the number of seconds that its statement may run; None means no limit.
    """

    server_side = False
    __slots__ = _SLOTS

    def execute(self, operation: str, parameters: Parameters | None = None) -> None:
        bound = () if parameters is None else parameters
        reply = self._runner.run_statement(operation, bound, execute_at_once, timeout=self.timeout)
        self._rows = iter(reply.rows)
        self.description = reply.description
        self.rowcount = reply.rowcount
        self.lastrowid = reply.lastrowid

    def fetchone(self) -> Row | None:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> Sequence[Row]:
        count = self.arraysize if size is None else size
        return list(islice(self._rows, max(0, count)))

    def fetchall(self) -> Sequence[Row]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Row]:
        rows: Iterator[Row] = self._rows
        return rows

    def close(self) -> None:
        self._rows = _NO_ROWS

    async def _async_soft_close(self) -> None:
        """Do nothing: SQLAlchemy calls this once it has all rows, which this cursor always has."""


@final
class StreamCursor(_AdaptedCursor, AsyncAdapt_aiosqlite_ss_cursor):  # type: ignore[override]
    """A cursor that fetches rows on demand: one hop per chunk, never all at once.

    ``timeout`` (seconds) applies to the statement's start and to each chunk. ``open_streams`` are
    the connection's streams, which include this cursor's while that is open.
    """

    server_side = True
    __slots__ = (*_SLOTS, "__weakref__", "_open_streams", "_stream")

    def __init__(
        self,
        connection: AdaptedConnection,
        runner: StatementRunner,
        open_streams: set[OpenStream],
    ) -> None:
        super().__init__(connection, runner)
        self._stream: OpenStream | None = None
        self._open_streams = open_streams

    def execute(self, operation: str, parameters: Parameters | None = None) -> None:
        bound = () if parameters is None else parameters
        self.close()
        # The connection refers to this cursor weakly, so that an abandoned stream is noticed.
        stream = self._stream = OpenStream(operation, self, self._open_streams)
        reply = self._runner.run_statement(
            operation, bound, stream.open, stream=True, timeout=self.timeout
        )
        self.description = reply.description
        self.rowcount = reply.rowcount
        self.lastrowid = reply.lastrowid

    def _fetch(self, call: Callable[[sqlite3.Cursor], T], nothing: T) -> T:
        stream = self._stream
        if stream is None or self.description is None:  # an INSERT has no rows, nor has executemany
            return nothing
        found: T = self._runner.run_in_thread(lambda: call(stream.cursor), timeout=self.timeout)
        return found

    def fetchone(self) -> Row | None:
        row: Row | None = self._fetch(lambda cursor: _fetch(cursor.fetchone), None)
        return row

    def fetchmany(self, size: int | None = None) -> Sequence[Row]:
        count = self.arraysize if size is None else size
        return self._fetch(lambda cursor: _fetch(cursor.fetchmany, count), [])

    def fetchall(self) -> Sequence[Row]:
        return self._fetch(lambda cursor: _fetch(cursor.fetchall), [])

    def __iter__(self) -> Iterator[Row]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close(self._runner)

    async def _async_soft_close(self) -> None:
        """Do nothing: the result closes its stream."""


# As with the connection: listeners check the names of these classes.
Cursor.__name__ = Cursor.__qualname__ = AsyncAdapt_aiosqlite_cursor.__name__
StreamCursor.__name__ = StreamCursor.__qualname__ = AsyncAdapt_aiosqlite_ss_cursor.__name__
