"""PEP 249 cursors over one hop: execute, fetch, description, row count and close in one job.

They are instances of SQLAlchemy's own cursor classes, as listeners expect, and share nothing with
them but their public names: what theirs do in five hops through aiosqlite, these do in one.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, TypeVar, final

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_ss_cursor,
)
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

Parameters = Sequence[Any] | Mapping[str, Any]
Row = tuple[Any, ...]
C = TypeVar("C", bound="_AdaptedCursor")

CLOSED = "the cursor is closed"
GIVEN_BACK = (
    "this stream was closed when its connection went back to the pool, as it does when a session "
    "commits, rolls back or closes, and at the end of a connection's block; read it to its end "
    "before, or stream on a connection of its own: async with engine.connect()"
)
TOO_OLD = "this stream was closed when its snapshot was ended, which was too old"


class Reply(NamedTuple):
    """All that a finished statement leaves behind."""

    rows: list[Row]
    description: Any
    rowcount: int
    lastrowid: int | None


NO_REPLY: Final = Reply([], None, -1, None)
"""What a statement leaves behind that gives nothing."""

Execute = Callable[[sqlite3.Connection, str, Any], Reply]
"""Executes a text with its parameters, in the thread of the connection."""


class StatementRunner(Protocol):
    """What a cursor needs: the executor of its connection."""

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


def execute_at_once(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
    """Execute it, and fetch all rows."""
    # Not ``connection.execute()``, which passes the cursors of a tracing proxy by.
    cursor = connection.cursor()
    try:
        cursor.execute(sql, parameters)
        description = cursor.description
        rows = cursor.fetchall() if description else []
        # A NamedTuple's own constructor is a function in Python.
        return _new(Reply, (rows, description, cursor.rowcount, cursor.lastrowid))
    finally:
        cursor.close()


_new = tuple.__new__


def _execute_many(
    connection: sqlite3.Connection, sql: str, parameters: Sequence[Parameters]
) -> Reply:
    cursor = connection.cursor()
    try:
        cursor.executemany(sql, parameters)
        return Reply([], None, cursor.rowcount, cursor.lastrowid)
    finally:
        cursor.close()


_NO_ROWS: Iterator[Row] = iter(())


# Of each subclass of _AdaptedCursor; a base that has slots fits beside no other that has.
_SLOTS: Final = ("_runner", "arraysize", "description", "lastrowid", "rowcount", "timeout")
_NO_SLOTS: Final = ()


class _AdaptedCursor:
    """What both kinds of cursor have."""

    __slots__ = _NO_SLOTS

    description: Any
    rowcount: int
    lastrowid: Any
    arraysize: int
    timeout: float | None
    _adapt_connection: Any
    _rows: Any
    _runner: StatementRunner

    await_ = staticmethod(await_only)  # of SQLAlchemy 2.0

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
        """The raw connection, as SQLAlchemy's cursors have it."""
        return self._adapt_connection._connection

    def executemany(self, operation: str, seq_of_parameters: Sequence[Parameters]) -> None:
        # It may have to be executed again, and an iterator would be empty then.
        rows = seq_of_parameters if isinstance(seq_of_parameters, list) else [*seq_of_parameters]
        self._accept(
            self._runner.run_statement(
                operation, rows, _execute_many, atomic=True, timeout=self.timeout
            )
        )

    def _accept(self, reply: Reply) -> None:
        self._rows = iter(reply.rows)
        self.description = reply.description
        self.rowcount = reply.rowcount
        self.lastrowid = reply.lastrowid

    def setinputsizes(self, *inputsizes: Any) -> None:
        """Nothing to do: PEP 249 allows it."""

    def nextset(self) -> NoReturn:
        """PEP 249: "if the database does not support … throw an exception"; as aiosqlite's."""
        raise AttributeError("a statement of SQLite has one result: there is no nextset()")

    if TYPE_CHECKING:  # each kind has its own

        def close(self) -> None: ...

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class Cursor(_AdaptedCursor, AsyncAdapt_aiosqlite_cursor):  # type: ignore[override]
    """A cursor whose rows are all fetched when ``execute()`` returns.

    ``timeout`` is how many seconds its statement may run; None for no limit.
    """

    server_side = False
    __slots__ = _SLOTS

    def execute(self, operation: str, parameters: Parameters | None = None) -> None:
        bound = () if parameters is None else parameters
        self._accept(
            self._runner.run_statement(operation, bound, execute_at_once, timeout=self.timeout)
        )

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
        """SQLAlchemy calls this when it has all rows; so have we."""


@final
class OpenStream:
    """A statement that rows are fetched from; it keeps its snapshot as long as it is open.

    While it is, it is among ``streams``, those of its connection, and so is closed where the
    connection may be used, whatever becomes of ``owner``, which fetches.
    """

    __slots__ = ("_cursor", "_owner", "_streams", "_why_closed", "sql")

    def __init__(self, sql: str, owner: StreamCursor, streams: set[OpenStream]) -> None:
        self.sql = sql
        self._cursor: sqlite3.Cursor | None = None
        self._owner = weakref.ref(owner)
        self._streams = streams
        self._why_closed = CLOSED

    def open(self, connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        """Execute it, for the first time or again. In the connection's thread.

        So that it is known from there on, even if the task that waits is cancelled.
        """
        if self._cursor is not None:
            self._cursor.close()
        cursor = connection.cursor()
        cursor.execute(sql, parameters)
        self._cursor = cursor
        self._streams.add(self)
        return Reply([], cursor.description, cursor.rowcount, cursor.lastrowid)

    @property
    def cursor(self) -> sqlite3.Cursor:
        """The open cursor; an error that says why it is none any more."""
        if self._cursor is None:
            raise sqlite3.ProgrammingError(self._why_closed)
        return self._cursor

    @property
    def abandoned(self) -> bool:
        """Whether nothing can fetch from it any more."""
        return self._owner() is None

    def detach(self, why: str = CLOSED) -> sqlite3.Cursor | None:
        """The open cursor, for a caller that closes it; None if it is closed or detached."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            self._why_closed = why
            self._streams.discard(self)
        return cursor

    def close(self, runner: StatementRunner, why: str = CLOSED) -> None:
        """Let go of the snapshot that the open statement holds."""
        cursor = self.detach(why)
        if cursor is not None:
            runner.run_briefly(cursor.close)


def close_abandoned(streams: set[OpenStream]) -> None:
    """Close those that nothing can fetch from any more. Where the connection may be used."""
    for stream in [stream for stream in streams if stream.abandoned]:
        if (cursor := stream.detach()) is not None:
            cursor.close()


@final
class StreamCursor(_AdaptedCursor, AsyncAdapt_aiosqlite_ss_cursor):  # type: ignore[override]
    """A cursor that fetches as its rows are asked for: a hop a chunk, never the whole.

    ``timeout`` applies to the statement's start and to each chunk. ``open_streams`` are those of
    the connection; this one's is among them while it is open.
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
        # Nothing that the connection keeps refers to this cursor: it is abandoned if nothing else
        # does.
        stream = self._stream = OpenStream(operation, self, self._open_streams)
        reply = self._runner.run_statement(
            operation, bound, stream.open, stream=True, timeout=self.timeout
        )
        self.description = reply.description
        self.rowcount = reply.rowcount
        self.lastrowid = reply.lastrowid

    def _fetch(self, call: Callable[[sqlite3.Cursor], Any]) -> Any:
        stream = self._stream
        if stream is None:
            raise sqlite3.ProgrammingError("nothing has been executed")
        return self._runner.run_in_thread(lambda: call(stream.cursor), timeout=self.timeout)

    def fetchone(self) -> Row | None:
        row: Row | None = self._fetch(lambda cursor: cursor.fetchone())
        return row

    def fetchmany(self, size: int | None = None) -> Sequence[Row]:
        count = self.arraysize if size is None else size
        rows: list[Row] = self._fetch(lambda cursor: cursor.fetchmany(count))
        return rows

    def fetchall(self) -> Sequence[Row]:
        rows: list[Row] = self._fetch(lambda cursor: cursor.fetchall())
        return rows

    def __iter__(self) -> Iterator[Row]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close(self._runner)

    async def _async_soft_close(self) -> None:
        """A stream is closed by its result."""
