"""Connections that return to their pool, to rest or to be closed; forks and exit close all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet
from sqlalchemy.util.queue import Empty

from ..compat.pool_records import Record, reusable
from ..database_file import DatabaseFile, database_file
from ..driver.adapter import SQLiteConnection
from ..execution.connection_thread import ConnectionThread
from ..files.location import Location
from ..files.open_files import open_files
from ..mutex import new_lock
from ..settings import Role
from ..sqlite.inspection import should_write
from .checkouts import Checkouts
from .idle import IdleWatch
from .on_file import OnFile
from .resting import IdleConnections, KeptConnections


class TakesBack(OnFile, AsyncAdaptedQueuePool):
    """The part of a pool that accepts returned connections, and closes those at rest."""

    _queue_class = IdleConnections
    _pool: IdleConnections
    _kept: KeptConnections
    _checkouts: Checkouts
    _idle_watch: IdleWatch
    _disposed: bool

    def _create_connection(self) -> ConnectionPoolEntry:
        return Record(self)

    def is_out(self, record: ConnectionPoolEntry) -> bool:
        """Return whether a record is checked out, and not yet being returned."""
        return self._checkouts.is_out(record)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            if isinstance(connection := record.dbapi_connection, SQLiteConnection):
                connection.checked_in()
                worker = connection.worker
                if worker.needs_check and not _is_fit(worker, self.role, self.database_file):
                    record.close()  # otherwise, the next checkout would fail
        except BaseException as error:  # even a cancellation: the connection's state is unknown
            record.invalidate(error)
            raise
        finally:
            self._put_back(record)

    def _put_back(self, record: ConnectionPoolEntry) -> None:
        # Return                        | Dispose
        # put                           | _disposed = True
        # if _disposed: close all       | close all
        # Whichever runs last finds the connection.
        checkout, together = self._checkouts.pop(record)
        if checkout is None:  # it was returned before, or belongs to the parent process
            return
        try:
            self._pool.put_nowait(
                record if record.dbapi_connection is not None else reusable(record, self)
            )
            if checkout.budget is not None:
                checkout.budget.end_work(checkout)
            if self._disposed:
                self._close_idle()
        finally:
            if together:
                self._checkouts.end(checkout)
            else:
                checkout.record_is_back()
        # Not in the garbage collector, which may interrupt a step of the turn itself. There, the
        # connection is returned separately from its record, and may still hold the turn.
        if self._disposed and together:
            self.database_file.turn.close_files()
            self._remove_left_directories()

    def _close_idle(self) -> None:
        failed: Exception | None = None
        while (record := self._pool.take()) is not None:
            self._dec_overflow()
            try:
                record.close()
            except Exception as error:  # for example of a listener; the others are closed anyway
                failed = failed or error
        self._let_go_of_log()
        if failed is not None:
            raise failed

    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:
        """Close as SQLAlchemy does, but log no error if the task is cancelled meanwhile.

        The connection is closed anyway. Tasks that end with their loop close the connections that
        they still have from an engine that was disposed of earlier.
        """
        if terminate or not isinstance(connection, SQLiteConnection):
            super()._close_connection(connection, terminate=terminate)
            return
        self.logger.debug("Closing connection %r", connection)
        try:
            self._dialect.do_close(connection)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.logger.exception("Exception closing connection %r", connection)
            if not isinstance(error, Exception):
                raise

    def dispose(self) -> None:
        """Close connections at rest now, and checked-out ones at their check-in.

        An in-memory database ends with the last of them, and the next pool creates a new one. A
        cancellation is raised once all are closed. SQLAlchemy's engine then keeps this pool, which
        stays in use: checked-out connections return to rest.
        """
        first, self._disposed = not self._disposed, True
        cancelled = _to_the_end(self._close_idle)
        cancelled = _to_the_end(self._kept.dispose) or cancelled
        self._connector.dispose()
        self._connector.shared_thread.stop()
        # The engine may stay, or be garbage that the collector finds late. If a connection holds
        # the turn now, the files are closed when it is returned.
        self.database_file.turn.close_files()
        self.logger.info("Pool disposed. %s", self.status())
        if cancelled is not None:
            self._disposed = False
            self._kept.go_on()
            raise cancelled
        if first:  # else another thread does the same, and the next pool may have a database
            self._connector.leave_private_directory()
        self._remove_left_directories()

    def _remove_left_directories(self) -> None:
        """Remove the directories of ended in-memory databases, once no pool uses them.

        A task that waited in the line of a pool that was disposed of opens the next pool's
        database, which may have ended as well.
        """
        left = self._connector.left
        for directory in left[:]:
            file = database_file(Location(directory.database))
            if not any(pool.in_use for pool in file.pools):
                directory.remove()
                with contextlib.suppress(ValueError):  # another thread removed it
                    left.remove(directory)

    # -- forks, and the end ---------------------------------------------------------------------

    def keep_log(self) -> None:
        """Leave the log where it is when the interpreter ends."""
        self._connector.keeps_log = True

    def close_at_exit(self) -> None:
        """Close connections at rest, so that SQLite checkpoints the log, unless it is to stay."""
        if not self._connector.keeps_log:
            self.prepare_for_fork()

    def prepare_for_fork(self) -> None:
        """Close connections at rest, so that a child may open the file; checkouts open new ones.

        An in-memory database would end with its last connection; it has no locks to inherit.
        """
        nothing_open = self._pool.empty() and not self._kept
        if not nothing_open and not self._connector.in_memory:
            self.close_at_rest()

    def close_at_rest(self) -> None:
        """Close connections at rest, in this thread; the next checkouts open them again."""
        resting: list[Any] = []
        with contextlib.suppress(Empty):
            while True:
                resting.append(self._pool.get_nowait())
        with contextlib.ExitStack() as stack:  # closes each, even if closing another one fails
            stack.callback(self._kept.close_before_fork)
            for record in resting:
                if (connection := record.dbapi_connection) is not None:
                    record.dbapi_connection = None
                    stack.callback(connection.close_before_fork)
                self._pool.put_nowait(record)

    def retire(self) -> None:
        """Close each connection that is checked out when it is returned."""
        for checkout in self._checkouts:
            if (connection := checkout.connection) is not None:
                connection.worker.spent = True

    def lends(self) -> bool:
        """Return whether a connection is checked out."""
        return any(checkout.connection is not None for checkout in self._checkouts)

    def renew_in_child(self) -> None:
        """Start without connections: the parent's must not be used in this process."""
        self._pool = self._queue_class(self._pool.maxsize, self._pool.use_lifo)
        self._overflow = -self.size()
        self._overflow_lock = new_lock()
        self._kept.renew_in_child()
        self._checkouts.renew_in_child()
        self._idle_watch.renew_in_child()


def _to_the_end(close: Callable[[], None]) -> asyncio.CancelledError | None:
    """Call ``close()``, which closes one connection after the other, until all are closed.

    Return the first cancellation raised meanwhile: the connection that was being closed is closed
    anyway, and the next call continues with the others.
    """
    first: asyncio.CancelledError | None = None
    while True:
        try:
            close()
        except asyncio.CancelledError as error:
            first = first or error
        else:
            return first


def _may_close(worker: ConnectionThread, path: str, file: DatabaseFile) -> bool:
    """Return whether a connection whose COMMIT was refused, for want of its log, may be closed.

    It has to be the last of this process: as such it moves what is left in that log, and the next
    one begins with another log. The others are closed before it, as they come to rest.
    """
    file.retire()
    if worker.closed:
        return True
    worker.spent = False
    return not open_files.others_are_open(worker.aiosqlite_connection, path)


def _is_fit(worker: ConnectionThread, role: Role, file: DatabaseFile) -> bool:
    """Return whether a connection to ``file`` that has been rolled back can be checked out again.

    It cannot if it is closed or spent, or if SQLite has opened it read-only although it should
    write. SQLite opens the index of the log once for all connections of a process to a file
    (``unixShmNode`` in its os_unix.c), and then read-only for all of them, until the last is
    closed. So if one is read-only, connections at rest are closed, too.
    """
    if worker.suspect and (path := file.file) is not None and open_files.has_lost_log(path):
        return not _may_close(worker, path, file)
    if worker.closed or worker.spent:
        return False
    if not worker.suspect or role is Role.READER or (path := file.file) is None:
        return True
    if not in_greenlet():  # nothing can be awaited here, so SQLite cannot be queried
        return False
    worker.suspect = await_only(worker.run(lambda connection: should_write(connection, path)))
    if worker.suspect:
        file.close_at_rest()
    return not worker.suspect
