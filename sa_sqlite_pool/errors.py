"""Every exception of the package; messages name the holder, the wait, and what to do next.

There are two families, both already caught by applications that use SQLAlchemy:

* errors about waits and misuse derive from SQLAlchemy's own exceptions and reach the caller
  unchanged; if a lock is not free, the error is also an ``OperationalError``, as on the stock
  driver;
* errors that SQLite itself would report derive from ``sqlite3``'s exceptions. SQLAlchemy wraps
  these in ``sqlalchemy.exc.OperationalError`` and keeps the original in ``.orig``.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError

__all__ = [
    "AwaitableError",
    "ClosureError",
    "CommitUnknownError",
    "ConfigurationError",
    "CopyError",
    "DamagedDatabaseError",
    "DatabaseClosedError",
    "DatabaseInUseError",
    "DatabaseNotUsableError",
    "ForbiddenWriteError",
    "NotADatabaseError",
    "OpenReadError",
    "OwnLockError",
    "PoolTimeout",
    "ReadLockTimeout",
    "ReadTimeout",
    "SessionEndedError",
    "SnapshotTooOldError",
    "StaleReadError",
    "StatementTimeout",
    "TransactionLostError",
    "TurnAlreadyHeldError",
    "WriteTimeout",
]


class ConfigurationError(exc.ArgumentError):
    """An argument is invalid: an unknown PRAGMA, a wrong value, the URL of another database."""


class DatabaseClosedError(exc.InvalidRequestError):
    """A :class:`~sa_sqlite_pool.SQLiteDatabase` was used before ``open()`` or after ``close()``.

    It is also raised in tasks that are waiting in line when the database is closed.
    """


class _Locked(exc.OperationalError):
    """A lock is not free, which the stock driver reports as "database is locked".

    ``orig`` is an ``sqlite3.OperationalError`` with that message and SQLITE_BUSY, which
    applications check for before they retry: SQLite's last error, or an equivalent one.
    """

    code: str = ""  # no link to SQLAlchemy's explanation, which describes another error

    def __init__(self, message: str, orig: BaseException | None = None) -> None:
        orig = _database_is_locked() if orig is None else orig
        exc.StatementError.__init__(self, message, None, None, orig)
        self.connection_invalidated = False

    def _message(self) -> str:
        return f"{super()._message()} ({self.orig})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.orig), {"detail": self.detail}


def _database_is_locked() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    vars(error).update(sqlite_errorcode=5, sqlite_errorname="SQLITE_BUSY")
    return error


class WriteTimeout(_Locked, exc.TimeoutError):
    """The turn was not acquired in time, or another program held SQLite's write lock too long.

    The message names the holder, how long it has held the turn, where its task is now, and its last
    SQL. No part of the caller's statement was executed. It is also an ``OperationalError``, whose
    ``orig`` is SQLite's "database is locked", as on the stock driver.
    """


class PoolTimeout(exc.TimeoutError):
    """No connection became free in time. The message names the tasks that hold the connections."""


class ReadTimeout(PoolTimeout):
    """No reader became free in time, or SQLite's lock kept a read waiting too long."""


class ReadLockTimeout(_Locked, ReadTimeout):
    """SQLite's lock, held exclusively, kept a read waiting too long.

    Like :class:`WriteTimeout`, it is also an ``OperationalError``.
    """


class StatementTimeout(exc.TimeoutError):
    """A statement ran for ``statement_timeout`` seconds and was stopped.

    No effect of the statement is kept. If the statement was writing, SQLite rolls back the whole
    transaction; later statements are then refused until ``rollback()``.
    """


class CommitUnknownError(exc.OperationalError):
    """The connection to a server was lost before the response to COMMIT arrived.

    It is unknown whether the transaction was committed. ``orig`` is the driver's error.
    """

    code: str = ""  # no link to SQLAlchemy's explanation, which describes other errors

    def __init__(self, message: str, orig: BaseException | None = None) -> None:
        orig = ConnectionError("the connection has ended") if orig is None else orig
        exc.StatementError.__init__(self, message, None, None, orig)
        self.connection_invalidated = True

    def _message(self) -> str:
        return f"{super()._message()} ({self.orig})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.orig), {"detail": self.detail}


class TurnAlreadyHeldError(_Locked, exc.InvalidRequestError):
    """A task requested the write turn that it already holds, and would wait for itself.

    Like :class:`WriteTimeout`, it is also an ``OperationalError``: the stock driver waits for the
    lock in vain and reports that.
    """


class ClosureError(exc.InvalidRequestError):
    """A function passed to ``run_read()`` or ``run_write()`` did something that is not allowed.

    It ended its transaction or used the database object again; or its session or connection was
    used after its end or in another thread. If it had not ended, its changes are rolled back.
    """


class AwaitableError(ClosureError, TypeError):
    """A closure is a coroutine function, or returned an object that would do its work later.

    The closure was passed to ``run_read()`` or ``run_write()``. None of its changes are kept.
    """


class StaleReadError(StaleDataError):
    """An auto session read, another transaction was committed, then the session tried to write.

    Raised only with ``routing_sessionmaker(..., refuse_stale_writes=True)``. Retry the whole
    transaction.
    """


class ForbiddenWriteError(sqlite3.OperationalError):
    """A reader attempted an action that can change a database file. Nothing was executed."""


class OwnLockError(sqlite3.OperationalError):
    """The lock in the way of a statement is held by its own connection.

    One of its results is still open, such as an INSERT … RETURNING with rows still to be fetched
    at COMMIT, or a stream when its table is dropped; or a file is attached twice. Waiting cannot
    help, so the error is raised at once.
    """


class TransactionLostError(sqlite3.OperationalError):
    """SQLite itself rolled back the transaction (full disk, I/O error, ``OR ROLLBACK``).

    Later statements are refused until ``rollback()``, so that the second half of a transaction is
    never committed without its first half.
    """


class SnapshotTooOldError(sqlite3.OperationalError):
    """A read transaction was older than ``max_snapshot_age`` and kept the log from shrinking.

    It was ended; later statements are refused until ``rollback()``, so that they do not read
    another snapshot. Read in shorter transactions, or declare them long.
    """


class DatabaseNotUsableError(sqlite3.OperationalError):
    """The file cannot be opened as requested: missing directory, no permission, WAL unavailable."""


class NotADatabaseError(sqlite3.DatabaseError):
    """The file exists but is not an SQLite database. It was not changed."""


class DatabaseInUseError(sqlite3.OperationalError):
    """The file that a backup or restore would replace is open elsewhere. It was not changed."""


class DamagedDatabaseError(sqlite3.DatabaseError):
    """``PRAGMA integrity_check`` found errors in a copy, which was not used."""


class SessionEndedError(exc.InvalidRequestError):
    """A session of ``db.read()`` or ``db.write()`` was used after the end of its block.

    Nothing was executed. Objects that it has loaded remain usable.
    """


class OpenReadError(exc.InvalidRequestError):
    """An auto session tried to write while a result that is still open was in the way.

    Nothing was written. Close the result first, or use ``role="writer"`` from the start.
    """


class CopyError(exc.InvalidRequestError):
    """A copy to PostgreSQL was not made; the message says why. The target is unchanged."""


def a_type(thing: object) -> str:
    """Return the name of the type of ``thing`` with its article, for a message."""
    name = type(thing).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"  # not U: "a UUID", "a user"
