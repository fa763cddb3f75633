"""How connections come back to their pool: to rest, or to be closed; at forks and exit, all."""

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
from ..sqlite.read_only import should_write
from .checkouts import Checkouts
from .idle import IdleWatch
from .on_file import OnFile
from .resting import IdleConnections, KeptConnections


class TakesBack(OnFile, AsyncAdaptedQueuePool):
    """The part of a pool that takes connections back, and closes those at rest."""

    _queue_class = IdleConnections
    _pool: IdleConnections
    _kept: KeptConnections
    _checkouts: Checkouts
    _idle_watch: IdleWatch
    _disposed: bool
    _left = False  # whether dispose() has left a database in memory

    def _create_connection(self) -> ConnectionPoolEntry:
        return Record(self)

    def is_out(self, record: ConnectionPoolEntry) -> bool:
        """Return whether a record is checked out, and not coming back yet."""
        return self._checkouts.is_out(record)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            if isinstance(connection := record.dbapi_connection, SQLiteConnection):
                connection.checked_in()
                worker = connection.worker
                if worker.needs_check and not _is_fit(worker, self.role, self.database_file):
                    record.close()  # or the next checkout would fail
        except BaseException as error:  # a cancellation too: the connection's state is unknown
            record.invalidate(error)
            raise
        finally:
            self._put_back(record)

    def _put_back(self, record: ConnectionPoolEntry) -> None:
        # Return                        | Dispose
        # put                           | _disposed = True
        # if _disposed: close all       | close all
        # Whichever comes last finds the connection.
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
        # Not by the garbage collector, which may be in the middle of a step of the turn itself. It
        # finds a connection that goes another way than its record, and may have the turn still.
        if self._disposed and together:
            self.database_file.turn.close_files()
            self._remove_left()

    def _close_idle(self) -> None:
        failed: Exception | None = None
        while (record := self._pool.take()) is not None:
            self._dec_overflow()
            try:
                record.close()
            except Exception as error:  # of a listener, say: the others are closed all the same
                failed = failed or error
        self._let_go_of_log()
        if failed is not None:
            raise failed

    def _close_connection(self, connection: DBAPIConnection, *, terminate: bool = False) -> None:
        """As SQLAlchemy does, without an error in the log where the task is cancelled meanwhile.

        The connection is closed all the same. Tasks that end with their loop close what they had of
        an engine that was disposed of before.
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

        A database in memory ends with the last of them, and the next pool begins another. A
        cancellation is raised when all are closed. SQLAlchemy's engine keeps this pool then, so
        it goes on: what is checked out comes back to rest.
        """
        self._disposed = True
        cancelled = _to_the_end(self._close_idle)
        cancelled = _to_the_end(self._kept.dispose) or cancelled
        self._connector.dispose()
        self._connector.shared_thread.stop()
        # The engine may stay, or be garbage that the collector finds late. A connection that has
        # the turn now closes them when it comes back.
        self.database_file.turn.close_files()
        self.logger.info("Pool disposed. %s", self.status())
        if cancelled is not None:
            self._disposed = False
            self._kept.go_on()
            raise cancelled
        self._left = self._connector.leave_private_directory()
        self._remove_left()

    def _remove_left(self) -> None:
        """Remove directories of databases in memory that were left, once nothing has them open.

        A task that has waited in the line of a pool that was disposed of opens what the next pool
        opens, which may be disposed of as well.
        """
        left = self._connector.left
        for directory in left[:]:
            file = database_file(Location(directory.database))
            if not any(pool.in_use for pool in file.pools):
                directory.remove()
                with contextlib.suppress(ValueError):  # another thread has
                    left.remove(directory)

    def _leave_old_file(self, path: str) -> None:
        """Close connections at rest to a file that was deleted or replaced since they were opened.

        A test may do so before it makes an engine anew. SQLite finds the log by the name of the
        database, so a new connection would use that of the old file, which goes with its last one.
        """
        if open_files.is_replaced(path):
            for pool in self.database_file.pools:
                pool.close_at_rest()
        open_files.assert_may_open(path)

    # -- forks, and the end ---------------------------------------------------------------------

    def keep_log(self) -> None:
        """Leave the log where it is when the interpreter ends."""
        self._connector.keeps_log = True

    def close_at_exit(self) -> None:
        """Close connections at rest, so that SQLite moves the log, unless it is to stay."""
        if not self._connector.keeps_log:
            self.prepare_for_fork()

    def prepare_for_fork(self) -> None:
        """Close connections at rest, so that a child may open the file; checkouts open new ones.

        A database in memory would be gone with its last connection; it has no locks to inherit.
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
        with contextlib.ExitStack() as stack:  # each of them, whatever becomes of the others
            stack.callback(self._kept.close_before_fork)
            for record in resting:
                if (connection := record.dbapi_connection) is not None:
                    record.dbapi_connection = None
                    stack.callback(connection.close_before_fork)
                self._pool.put_nowait(record)

    def renew_in_child(self) -> None:
        """Begin without connections: the parent's must not be used in this process."""
        self._pool = self._queue_class(self._pool.maxsize, self._pool.use_lifo)
        self._overflow = -self.size()
        self._overflow_lock = new_lock()
        self._kept.renew_in_child()
        self._checkouts.renew_in_child()
        self._idle_watch.renew_in_child()


def _to_the_end(close: Callable[[], None]) -> asyncio.CancelledError | None:
    """Call ``close()``, which closes one connection after the other, until all are closed.

    Return the first cancellation that came meanwhile: the connection at hand is closed all the
    same, and the next call goes on with the others.
    """
    first: asyncio.CancelledError | None = None
    while True:
        try:
            close()
        except asyncio.CancelledError as error:
            first = first or error
        else:
            return first


def _is_fit(worker: ConnectionThread, role: Role, file: DatabaseFile) -> bool:
    """Return whether a connection to ``file``, which has been rolled back, can do its work.

    It cannot if it is closed or spent, or if SQLite has opened it read-only although it should
    write. SQLite opens the index of the log once for all connections of a process to a file
    (``unixShmNode`` in its os_unix.c), and read-only for all of them, until the last is closed. So
    if one is read-only, connections at rest are closed, too.
    """
    if worker.closed or worker.spent:
        return False
    if not worker.suspect or role is Role.READER or (path := file.file) is None:
        return True
    if not in_greenlet():  # SQLite cannot be asked here
        return False
    worker.suspect = await_only(worker.run(lambda connection: should_write(connection, path)))
    if worker.suspect:
        for pool in file.pools:
            pool.close_at_rest()
    return not worker.suspect
