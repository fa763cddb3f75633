"""PEP 249 cursors over one hop: execute, fetch, description, row count and close in one job."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

Parameters = Sequence[Any] | Mapping[str, Any]
Row = tuple[Any, ...]


class StatementRunner(Protocol):
    """What a cursor needs: the executor of its connection."""

    @property
    def statement_timeout(self) -> float | None: ...

    def run_statement(
        self,
        sql: str,
        call: Callable[[sqlite3.Connection], Any],
        *,
        atomic: bool = False,
        stream: bool = False,
        timeout: float | None = None,
    ) -> Any: ...

    def run_in_thread(self, call: Callable[[], Any], *, timeout: float | None = None) -> Any: ...

    def run_briefly(self, call: Callable[[], Any]) -> Any: ...


class Reply(NamedTuple):
    """All that a finished statement leaves behind."""

    rows: list[Row]
    description: Any
    rowcount: int
    lastrowid: int | None


def _execute(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
    cursor = connection.execute(sql, parameters)
    try:
        rows = cursor.fetchall() if cursor.description else []
        return Reply(rows, cursor.description, cursor.rowcount, cursor.lastrowid)
    finally:
        cursor.close()


def _execute_many(
    connection: sqlite3.Connection, sql: str, parameters: Sequence[Parameters]
) -> Reply:
    cursor = connection.executemany(sql, parameters)
    try:
        return Reply([], None, cursor.rowcount, cursor.lastrowid)
    finally:
        cursor.close()


class Cursor:
    """A cursor whose rows are all fetched when ``execute()`` returns.

    ``timeout`` is how many seconds its statement may run; None for no limit.
    """

    server_side = False
    __slots__ = (
        "_rows",
        "_runner",
        "arraysize",
        "description",
        "lastrowid",
        "rowcount",
        "timeout",
    )

    def __init__(self, runner: StatementRunner) -> None:
        self._runner = runner
        self._rows: Iterator[Row] = iter(())
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.timeout = runner.statement_timeout

    def execute(self, operation: str, parameters: Parameters | None = None) -> None:
        bound = () if parameters is None else parameters
        self._accept(
            self._runner.run_statement(
                operation,
                lambda connection: _execute(connection, operation, bound),
                timeout=self.timeout,
            )
        )

    def executemany(self, operation: str, seq_of_parameters: Sequence[Parameters]) -> None:
        self._accept(
            self._runner.run_statement(
                operation,
                lambda connection: _execute_many(connection, operation, seq_of_parameters),
                atomic=True,
                timeout=self.timeout,
            )
        )

    def _accept(self, reply: Reply) -> None:
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
        return self._rows

    def setinputsizes(self, *sizes: Any) -> None:
        """Nothing to do: PEP 249 allows it."""

    def close(self) -> None:
        self._rows = iter(())

    async def _async_soft_close(self) -> None:
        """SQLAlchemy calls this when it has all rows; so have we."""


class StreamCursor(Cursor):
    """A cursor that fetches as its rows are asked for: a hop a chunk, never the whole.

    ``timeout`` applies to the statement's start and to each chunk. ``open_streams`` are those of
    the connection; this one is among them while it is open.
    """

    server_side = True
    __slots__ = ("__weakref__", "_cursor", "_open_streams")

    def __init__(self, runner: StatementRunner, open_streams: set[StreamCursor]) -> None:
        super().__init__(runner)
        self._cursor: sqlite3.Cursor | None = None
        self._open_streams = open_streams

    def execute(self, operation: str, parameters: Parameters | None = None) -> None:
        bound = () if parameters is None else parameters
        self._runner.run_statement(
            operation,
            lambda connection: self._open(connection, operation, bound),
            stream=True,
            timeout=self.timeout,
        )
        self.description = self._opened.description
        self.rowcount = self._opened.rowcount
        self.lastrowid = self._opened.lastrowid

    def _open(self, connection: sqlite3.Connection, operation: str, bound: Parameters) -> None:
        # In the thread, so that a cancelled task does not lose sight of the open statement.
        self._cursor = connection.execute(operation, bound)
        self._open_streams.add(self)

    @property
    def _opened(self) -> sqlite3.Cursor:
        if self._cursor is None:
            raise sqlite3.ProgrammingError("the cursor is closed")
        return self._cursor

    def _fetch(self, call: Callable[[sqlite3.Cursor], Any]) -> Any:
        return self._runner.run_in_thread(lambda: call(self._opened), timeout=self.timeout)

    def fetchone(self) -> Row | None:
        row: Row | None = self._fetch(sqlite3.Cursor.fetchone)
        return row

    def fetchmany(self, size: int | None = None) -> Sequence[Row]:
        count = self.arraysize if size is None else size
        rows: list[Row] = self._fetch(lambda cursor: cursor.fetchmany(count))
        return rows

    def fetchall(self) -> Sequence[Row]:
        rows: list[Row] = self._fetch(sqlite3.Cursor.fetchall)
        return rows

    def __iter__(self) -> Iterator[Row]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Let go of the snapshot that the open statement holds."""
        cursor = self.detach()
        if cursor is not None:
            self._runner.run_briefly(cursor.close)

    def detach(self) -> sqlite3.Cursor | None:
        """Give the open statement to somebody who closes it."""
        cursor, self._cursor = self._cursor, None
        self._open_streams.discard(self)
        return cursor

    async def _async_soft_close(self) -> None:
        """A stream is closed by its result."""
