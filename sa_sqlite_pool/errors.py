"""Every exception of the package; messages name the holder, the wait, and what to do next.

Two families, both already caught by applications that use SQLAlchemy:

* errors about waits and misuse derive from SQLAlchemy's own exceptions and reach the caller
  as they are; if a lock is not free, the error is an ``OperationalError``, too, as on the stock
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

    Tasks that wait in line while it is closed get it, too.
    """


class _Locked(exc.OperationalError):
    """A lock is not free: what the stock driver reports as "database is locked".

    ``orig`` is an ``sqlite3.OperationalError`` with that message and SQLITE_BUSY, for which
    applications check before they try again: SQLite's last error, or an equivalent.
    """

    code = ""  # no link to SQLAlchemy's explanation, which is of another error

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
    """The write turn did not come in time, or another program held SQLite's write lock too long.

    The message names the holder, how long it has held the turn, where its task is now, and its last
    SQL. Nothing of the caller's statement was executed. It is an ``OperationalError``, too, whose
    ``orig`` is SQLite's "database is locked", as on the stock driver.
    """


class PoolTimeout(exc.TimeoutError):
    """No connection became free in time. The message names the tasks that hold them."""


class ReadTimeout(PoolTimeout):
    """No reader became free in time, or SQLite's lock kept a read waiting too long."""


class ReadLockTimeout(_Locked, ReadTimeout):
    """SQLite's lock, held exclusively, kept a read waiting too long.

    It is an ``OperationalError``, too, as :class:`WriteTimeout` is.
    """


class StatementTimeout(exc.TimeoutError):
    """A statement ran for ``statement_timeout`` seconds and was stopped.

    Nothing of the statement is kept. SQLite rolls back the whole transaction if the statement was
    writing; later statements are then refused until ``rollback()``.
    """


class CommitUnknownError(exc.OperationalError):
    """The connection to a server has ended before the answer to COMMIT came.

    It is not known whether the transaction is committed. ``orig`` is the error of the driver.
    """

    code = ""  # no link to SQLAlchemy's explanation, which is of other errors

    def __init__(self, message: str, orig: BaseException | None = None) -> None:
        orig = ConnectionError("the connection has ended") if orig is None else orig
        exc.StatementError.__init__(self, message, None, None, orig)
        self.connection_invalidated = True

    def _message(self) -> str:
        return f"{super()._message()} ({self.orig})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.orig), {"detail": self.detail}


class TurnAlreadyHeldError(_Locked, exc.InvalidRequestError):
    """A task requested the write turn that it already holds: it would wait for itself.

    It is an ``OperationalError``, too, as :class:`WriteTimeout` is: the stock driver waits for the
    lock, in vain, and reports it.
    """


class ClosureError(exc.InvalidRequestError):
    """A function given to ``run_read()`` or ``run_write()`` did what it may not.

    It ended its transaction or used the database object again; or its session or connection was
    used after its end or in another thread. If it had not ended, nothing of it is kept.
    """


class AwaitableError(ClosureError, TypeError):
    """A closure is a coroutine function, or returned something that would do its work later.

    The closure was given to ``run_read()`` or ``run_write()``. Nothing of it is kept.
    """


class StaleReadError(StaleDataError):
    """An auto session read, another transaction was committed, then the session tried to write.

    Raised only with ``routing_sessionmaker(..., refuse_stale_writes=True)``. Retry the whole
    transaction.
    """


class ForbiddenWriteError(sqlite3.OperationalError):
    """A reader tried something that can change a database file. Nothing was executed."""


class OwnLockError(sqlite3.OperationalError):
    """The lock in the way of a statement is held by its own connection.

    A result of it is still open, such as an INSERT … RETURNING with rows still to be fetched at
    COMMIT, or a stream when its table is dropped; or a file is attached twice. No wait helps, so
    the error is raised at once.
    """


class TransactionLostError(sqlite3.OperationalError):
    """SQLite rolled the transaction back by itself (full disk, I/O error, ``OR ROLLBACK``).

    Later statements are refused until ``rollback()``, so that the second half of a transaction is
    never committed without its first half.
    """


class SnapshotTooOldError(sqlite3.OperationalError):
    """A read transaction was older than ``max_snapshot_age`` and kept the log from shrinking.

    It was ended; later statements are refused until ``rollback()``, so that they do not read
    another snapshot. Read in shorter transactions, or declare them long.
    """


class DatabaseNotUsableError(sqlite3.OperationalError):
    """The file cannot be opened as requested: no such directory, no permission, no WAL here."""


class NotADatabaseError(sqlite3.DatabaseError):
    """The file exists and is not an SQLite database. It was not changed."""


class DatabaseInUseError(sqlite3.OperationalError):
    """The file that a backup or restore would replace is open elsewhere. It was not changed."""


class DamagedDatabaseError(sqlite3.DatabaseError):
    """``PRAGMA integrity_check`` found errors in a copy, which was not used."""


class SessionEndedError(exc.InvalidRequestError):
    """A session of ``db.read()`` or ``db.write()`` was used after the end of its block.

    Nothing was executed. Objects that it has loaded stay usable.
    """


class OpenReadError(exc.InvalidRequestError):
    """An auto session tried to write while a result that is still open stands in the way.

    Nothing was written. Close the result first, or use ``role="writer"`` from the start.
    """


class CopyError(exc.InvalidRequestError):
    """A copy to PostgreSQL was not made, and the message says why. The target is as it was."""
