"""One connection and its thread, from opening to their end: closed, given up, left to others."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import final

import aiosqlite

from ..files.open_files import open_files
from ..sqlite.driver_errors import dbapi
from ..system.forks import renew_after_fork, rest
from .raw import (
    connection_class,
    leave_to_parent,
    mark_closed,
    open_as,
    open_connection,
    queue_of,
)
from .running import RunsJobs
from .shared_thread import SharedThread

__all__ = [
    "NEVER_CLOSED",
    "ConnectionThread",
    "connection_class",
    "inherited_files",
    "open_connection",
]

# Files (real paths) to which this process has inherited a connection by fork().
inherited_files: set[str] = set()

NEVER_CLOSED = "it was never closed"

Cursors = Callable[[], Iterable[sqlite3.Cursor]]

_CLOSE_SECONDS = 1.0  # for a thread that has nothing else to do
_ROWS = 64  # rows that aiosqlite fetches at once, its default

# Kept alive until they are closed: aiosqlite's own finalizer would stop the thread of a connection
# that still has to roll back a transaction there.
_open_connections: set[aiosqlite.Connection] = set()


@final
class ConnectionThread(RunsJobs):
    """One ``sqlite3`` connection, used by one job at a time, until it is given up.

    How it begins and ends is here; its jobs, and the thread of each, are in
    :class:`~.running.RunsJobs`.
    """

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        connection: aiosqlite.Connection,
        *,
        threadsafe: bool,
        shared: SharedThread | None = None,
        file: str | None = None,
    ) -> None:
        super().__init__(connection, threadsafe, shared, file)
        _open_connections.add(connection)
        renew_after_fork(self)

    @classmethod
    async def open(cls, uri: str, file: str | None) -> ConnectionThread:
        """Open a new connection to the database at ``uri``, a ``file:`` URI."""

        def connect() -> sqlite3.Connection:
            # Not sqlite3.connect(), which a tracer may have replaced: this connection is internal.
            return sqlite3.Connection(
                uri, uri=True, isolation_level=None, timeout=0, check_same_thread=False
            )

        connection = await open_as(aiosqlite.Connection(connect, iter_chunk_size=_ROWS))
        return cls(connection, threadsafe=True, file=file)

    async def close(self, cursors: Cursors = tuple) -> None:
        """Close the connection and end the thread, even if the caller is cancelled meanwhile.

        ``cursors()`` returns the open cursors; they are closed before the connection.
        """
        if self._has_ended():
            return

        was_stopped = self._was_stopped

        def close(connection: sqlite3.Connection) -> None:
            _roll_back(connection, cursors(), was_stopped=was_stopped)
            open_files.closes(self.aiosqlite_connection)
            connection.close()

        try:
            await self.run(close, interruptible=False)
        finally:
            self.ended = "it was closed"
            self._stop()

    # -- giving it up ---------------------------------------------------------------------------

    def give_up(
        self,
        reason: str,
        *,
        keep: bool,
        done: Callable[[ConnectionThread | None], None],
        cursors: Cursors = tuple,
    ) -> None:
        """Give up the connection at once, without waiting; from any thread, with or without a loop.

        The running job is stopped, open cursors are closed, and the transaction is rolled back, in
        the connection's own thread if that takes any time. Then ``done`` is called, in that thread
        or in this one: with a new :class:`ConnectionThread` for the same warm connection; or with
        None, once the connection is closed, if ``keep`` is False, if the application has the raw
        connection, or if SQLite refuses.

        ``cursors()`` returns the open cursors, which are closed here, each of them only once. It is
        called in this thread, and again after the running job, which may have opened another.

        Further use of this object raises ``sqlite3.OperationalError`` with ``reason``.
        """
        if self._has_ended():
            done(None)
            return
        found = list(cursors())
        idle = not found and self._is_idle()
        self.ended = reason
        keep = keep and not self.suspect and not self.lent
        if keep and idle:
            done(self._successor())
        else:
            self._stop_in_own_thread()
            queue_of(self.aiosqlite_connection).put_job(
                lambda: self._give_up_in_thread(keep, done, found, cursors)
            )

    def _is_idle(self) -> bool:
        """Return whether others may use the connection in its current state."""
        try:
            return self.may_run_inline and not self.in_transaction
        except dbapi.Error:  # the application has closed SQLite's own connection
            return False

    def _stop_in_own_thread(self) -> None:
        """Stop the jobs that the remaining work would wait for."""
        if self._in_own_thread and not self.at_rest:
            jobs, reason = list(self._unfinished()), self._no_connection()

            def end() -> None:
                for job in jobs:
                    job.end_beside(reason)

            stop = threading.Thread(
                target=end,
                name="sa_sqlite_pool-stop",
                daemon=True,
            )
            with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                stop.start()

    def _give_up_in_thread(
        self,
        keep: bool,
        done: Callable[[ConnectionThread | None], None],
        found: list[sqlite3.Cursor],
        cursors: Cursors,
    ) -> None:
        successor = None
        try:
            for job in self._unfinished():
                job.end_in_thread(self._no_connection())
            with self._in_use, rest():
                # Before it is closed, too: as long as anything refers to a cursor, SQLite keeps a
                # closed connection and its locks (https://www.sqlite.org/c3ref/close.html).
                found.extend(cursors())
                connection = self.aiosqlite_connection._connection
                if _roll_back(connection, found, was_stopped=True) and keep:
                    successor = self._successor()
                else:
                    self._close_in_thread()
        finally:
            done(successor)

    def _close_in_thread(self) -> None:
        connection = self.aiosqlite_connection._connection
        try:
            if connection is not None:
                open_files.closes(self.aiosqlite_connection)
                connection.close()
        finally:
            self._stop()

    def _successor(self) -> ConnectionThread:
        successor = ConnectionThread(
            self.aiosqlite_connection,
            threadsafe=self._threadsafe,
            shared=self._shared,
            file=self.file,
        )
        if self._was_stopped:  # that lasts until the next statement, if there is one
            successor.follow(self)
        return successor

    def _stop(self) -> None:
        mark_closed(self.aiosqlite_connection)
        self._forget()

    @property
    def _was_stopped(self) -> bool:
        job = self._last_job
        return job is not None and job.must_stop

    def _has_ended(self) -> bool:
        """Return whether there is nothing left to close."""
        if self.closed_by_application:
            self._forget()
        return self.closed

    def _forget(self) -> None:
        _open_connections.discard(self.aiosqlite_connection)
        open_files.discard(self.aiosqlite_connection)

    def leave_to_others(self, cursors: list[sqlite3.Cursor]) -> None:
        """Leave the connection to the application, which has it and will close it.

        ``cursors``, which nothing else refers to, are closed in its thread. Any thread may call it.
        """
        self.ended = "it was left to the application"
        if cursors:
            queue_of(self.aiosqlite_connection).put_job(partial(_close_all, cursors))
        self._forget()

    def __del__(self) -> None:
        if not self.closed:
            self.give_up(NEVER_CLOSED, keep=False, done=lambda _: None)

    # -- forks ----------------------------------------------------------------------------------

    def close_before_fork(self) -> None:
        """Close a connection at rest, in this thread: its own may be anywhere in its queue."""
        connection, self.ended = self.aiosqlite_connection._connection, "it was closed for a fork()"
        if connection is not None:
            try:
                _roll_back(connection, (), was_stopped=self._was_stopped)
                open_files.closes(self.aiosqlite_connection)
                connection.close()
            except dbapi.ProgrammingError:  # a creator's, which sqlite3 binds to its thread
                self._close_there()
            except BaseException:  # from a class of the application: its thread ends anyway
                self._stop()
                raise
            else:
                self._stop()

    def _close_there(self) -> None:
        """Close a connection at rest in its own thread, and wait for that."""
        closed = threading.Event()

        def close() -> None:
            try:
                self._close_in_thread()
            finally:
                closed.set()

        queue_of(self.aiosqlite_connection).put_job(close)
        closed.wait(_CLOSE_SECONDS)

    def renew_in_child(self) -> None:
        """Never touch the parent's connection again: not even its memory is freed."""
        if leave_to_parent(self.aiosqlite_connection) and self.file is not None:
            inherited_files.add(self.file)
        if self.ended is None:
            self.ended = (
                f"it was opened in process {os.getppid()}, before the fork() that created this "
                "one, and belongs to that process"
            )


def _close_all(cursors: list[sqlite3.Cursor]) -> None:
    for cursor in cursors:
        cursor.close()


def _roll_back(
    connection: sqlite3.Connection | None, cursors: Iterable[sqlite3.Cursor], *, was_stopped: bool
) -> bool:
    """Close the cursors and roll back; return whether the connection can be used again.

    ``was_stopped``: the last statement may have been interrupted. "The sqlite3_interrupt(D) call is
    in effect until all currently running SQL statements on database connection D complete"
    (https://www.sqlite.org/c3ref/interrupt.html), but SQLite checks that when the next one begins.
    Without one, the checkpoint that SQLite runs as it closes a connection would be interrupted.
    """
    if connection is None:
        return False
    try:
        for cursor in cursors:  # an open read would keep its snapshot
            cursor.close()
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        elif was_stopped:
            connection.execute("SELECT 1").close()
    except dbapi.Error:  # for example, the disk is broken: the connection is unusable
        return False
    return not connection.in_transaction
