"""Every exception of the package: who, how long, what to do next.

Two families, both already caught by applications that use SQLAlchemy:

* errors about waiting and misuse derive from SQLAlchemy's own exceptions and reach the caller
  as they are; where a lock did not come free, that is ``OperationalError``, too, as it is on the
  stock driver;
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
    "ConfigurationError",
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
    """An argument that cannot work: an unknown pragma, a wrong value, another database's URL."""


class DatabaseClosedError(exc.InvalidRequestError):
    """A :class:`~sa_sqlite_pool.SQLiteDatabase` was used before ``open()`` or after ``close()``.

    Also raised in tasks that wait in line while it is being closed.
    """


class _LockTimeout(exc.OperationalError):
    """A lock did not come free in time: what the stock driver reports as "database is locked".

    ``orig`` is an ``sqlite3.OperationalError`` with that message and SQLITE_BUSY, as applications
    that try again look for it: the one that SQLite has raised last, or one in its place.
    """

    code = ""  # no link to an explanation that is about another error

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


class WriteTimeout(_LockTimeout, exc.TimeoutError):
    """The write turn, or SQLite's write lock held by somebody else, did not come in time.

    The message names the holder, how long it has held the turn, where its task is now, and its
    last SQL. Nothing of the caller's statement was executed. It is an ``OperationalError``, too,
    whose ``orig`` is SQLite's "database is locked", since that is what it is on the stock driver.
    """


class PoolTimeout(exc.TimeoutError):
    """No connection became free in time. The message names the tasks that hold them."""


class ReadTimeout(PoolTimeout):
    """No reader became free in time, or SQLite's lock kept a read waiting too long."""


class ReadLockTimeout(_LockTimeout, ReadTimeout):
    """SQLite's lock, held exclusively, kept a read waiting too long.

    An ``OperationalError``, too, as :class:`WriteTimeout` is.
    """


class StatementTimeout(exc.TimeoutError):
    """A statement ran for ``statement_timeout`` seconds and was stopped.

    Nothing of the statement is kept. SQLite rolls back the whole transaction if the statement was
    writing; what follows is refused then until ``rollback()``.
    """


class TurnAlreadyHeldError(exc.InvalidRequestError):
    """The task asks for the write turn that it holds: it would wait for itself."""


class ClosureError(exc.InvalidRequestError):
    """A function given to ``run_read()`` or ``run_write()`` did what it may not.

    It ended its transaction, used the database object again, or what it was given was used after
    its end or in another thread. Nothing of it is kept if it had not ended.
    """


class AwaitableError(ClosureError, TypeError):
    """A function given to ``run_read()`` or ``run_write()`` is a coroutine function, or returned
    something that would do its work later. Nothing of it is kept.
    """


class StaleReadError(StaleDataError):
    """An auto session read, somebody else committed, then the session wanted to write.

    Only raised where ``routing_sessionmaker(..., refuse_stale_writes=True)`` asks for it.
    Retry the whole transaction.
    """


class ForbiddenWriteError(sqlite3.OperationalError):
    """A reader tried something that can change a database file. Nothing was executed."""


class OwnLockError(sqlite3.OperationalError):
    """The lock in the way of a statement is held by its own connection.

    A result of it is still open, such as an INSERT … RETURNING whose rows are still to be fetched
    when COMMIT comes, or a stream when its table is dropped; or a file is attached twice. No
    waiting helps, so it is raised at once.
    """


class TransactionLostError(sqlite3.OperationalError):
    """SQLite rolled the transaction back by itself (full disk, I/O error, ``OR ROLLBACK``).

    Statements that follow are refused until ``rollback()``, so that the second half of a
    transaction is never committed without its first half.
    """


class SnapshotTooOldError(sqlite3.OperationalError):
    """A read transaction was older than ``max_snapshot_age`` and kept the log from shrinking.

    It has been ended; statements that follow are refused until ``rollback()``, so that they do not
    answer from another snapshot. Read in shorter transactions, or declare it long.
    """


class DatabaseNotUsableError(sqlite3.OperationalError):
    """The file cannot be opened as asked: no such directory, no permission, no WAL here."""


class NotADatabaseError(sqlite3.DatabaseError):
    """The file exists and is not an SQLite database. It was not changed."""


class DatabaseInUseError(sqlite3.OperationalError):
    """Somebody has the file open that a backup or a restore would replace. It was not changed."""


class DamagedDatabaseError(sqlite3.DatabaseError):
    """``PRAGMA integrity_check`` found errors in a copy, which was not used then."""


class SessionEndedError(exc.InvalidRequestError):
    """A session of ``db.read()`` or ``db.write()`` was used after the end of its block.

    Nothing was executed. What it has loaded stays usable.
    """


class OpenReadError(exc.InvalidRequestError):
    """An auto session wants to write while a result that is still open stands in the way.

    Nothing was written. Close the result first, or use ``role="writer"`` from the start.
    """
