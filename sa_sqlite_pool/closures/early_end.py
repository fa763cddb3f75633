"""Functions that are ended before they return, and the errors that report the cause.

Misuse, a transaction that SQLite itself has rolled back, a time-out, a snapshot that is too old,
a cancellation, a connection that was given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import sqlite3
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Protocol

from sqlalchemy.exc import OperationalError

from ..errors import ClosureError, TransactionLostError
from ..settings import Role
from ..sqlite.driver_errors import dbapi, is_read_only
from ..system.clock import time
from ..turn.permit import shorten
from ..turn.snapshots import Snapshot
from .borrowed import BorrowedConnection

_BY_DRIVER = "by a statement on the driver's connection"


class Phase(enum.Enum):
    """The phases of a :class:`ThreadConnection`, in the only order in which they occur."""

    STARTING = enum.auto()  # SQLAlchemy begins its transaction and calls listeners
    RUNNING = enum.auto()  # the function runs
    ENDING = enum.auto()  # it has returned: the last flush, then the end of the transaction
    ENDED = enum.auto()


class Caller(Protocol):
    """The call that runs a function."""

    @property
    def cancelled(self) -> bool:
        """True if it no longer waits for the function."""


class Guarded(BorrowedConnection):
    """A borrowed connection that refuses further use when its function must stop.

    A subclass sets the attributes declared here: SQLite's connection, the call that waits for the
    function or no longer does, whether only the function's own work is lost with the transaction,
    and the thread in which the function runs.

    SQLite rolls back the whole transaction when a statement that writes is stopped. So that is only
    done if the work is the function's own, or if all is lost anyway; see :meth:`look`.
    """

    sqlite: sqlite3.Connection
    _caller: Caller
    _alone: bool
    _thread: int

    # Class attributes for values that few functions need, since each function has a connection.
    _misuse: ClosureError | None = None
    _lost_by: BaseException | None = None  # the error with which SQLite ended the transaction
    _reads = False  # the running statement writes nothing
    _stops_at: float | None = None
    _too_old: Callable[[], Exception] | None = None  # creates the error of a read ended early
    phase = Phase.STARTING

    def look(self) -> bool:
        """Return whether to stop the running statement. SQLite calls this."""
        if self._too_old is not None:
            return True
        if self._stops_at is not None and time.monotonic() >= self._stops_at:
            return True
        worker = self._executor.worker
        if worker.closed or worker.must_stop:
            return True
        return self._caller.cancelled and (self._alone or self._reads)

    def _assert_here(self) -> None:
        if self._thread != get_ident():
            raise ClosureError(
                f"{self!r} belongs to one thread: use it only in the function that received it, "
                "and return what you have read"
            )
        if self.phase is Phase.ENDED:
            raise ClosureError(
                f"{self!r} was used after its function had returned: read everything inside the "
                "function, for example with .all(), and return that"
            )

    def _assert_usable(self) -> None:
        executor = self._executor
        if (  # the checks of _assert_here() and _assert_going_on(), without the calls
            self._thread != get_ident()
            or self.phase is Phase.ENDED
            or not self.sqlite.in_transaction
            or self._misuse is not None
            or self._too_old is not None
            or executor.transaction.lost_by is not None
            or executor.worker.ended is not None
            or self._caller.cancelled
        ):
            self._assert_here()
            self._assert_going_on()

    def _assert_going_on(self) -> None:
        self.notice_end()
        if self._misuse is not None:
            raise self._misuse
        self._executor.transaction.assert_not_lost()
        self._assert_not_too_old()
        self.assert_wanted()

    def end_early(self, _: Snapshot, error: Callable[[], Exception]) -> None:
        """Stop the function at once: raise ``error()`` from the statements that it executes."""
        self._too_old = error

    def _assert_not_too_old(self) -> None:
        if self._too_old is not None:
            raise self._too_old()

    def notice_end(self) -> None:
        """Note a transaction that was ended in a way that bypassed this object."""
        with contextlib.suppress(*dbapi.ProgrammingError):  # the function closed the connection
            if not self.sqlite.in_transaction:
                executor = self._executor
                if not (executor.worker.closed or executor.transaction.lost):
                    executor.transaction.note_loss(True, sqlite3.OperationalError(_BY_DRIVER))

    def _raise_what_led_to(self, error: Exception) -> None:
        """Raise the cause of an error that would be misleading on its own."""
        self.notice_end()
        if self._misuse is not None and isinstance(error, sqlite3.Error):
            raise self._misuse from error  # due to EndWatch: SQLite says "not authorized"
        try:
            self._executor.transaction.assert_not_lost()
        except TransactionLostError as lost:
            if not comes_from(error, self._lost_by):
                raise OperationalError(None, None, lost) from error

    def assert_wanted(self) -> None:
        """Raise the error that the caller gets if no task waits for the result any more."""
        self._executor.worker.assert_usable()
        if self._caller.cancelled:
            raise asyncio.CancelledError

    def _explain(self, error: Exception, sql: str, timeout: float | None) -> None:
        executor = self._executor
        executor.transaction.note_loss(True, error)
        if self._lost_by is None and executor.transaction.lost:
            self._lost_by = error
        authorizer = executor.authorizer
        if executor.role is Role.READER and (authorizer.denied or is_read_only(error)):
            what = authorizer.denied or authorizer.attempted or shorten(sql)
            raise executor.rules.forbidden(what) from error
        if (explained := executor.transaction.own_lock(error)) is not None:
            raise explained from error
        if str(error) != "interrupted":
            return
        self._assert_not_too_old()
        self.assert_wanted()
        if self._stops_at is None or time.monotonic() < self._stops_at:
            return  # stopped by the application's own progress handler
        lost = executor.transaction.lost
        raise executor.rules.took_too_long(sql, timeout, lost=lost) from error


def comes_from(error: BaseException, loss: BaseException | None) -> bool:
    """Return whether ``error`` reports ``loss``, the error that ended the transaction.

    It may be the same error, as raised by SQLAlchemy, or one that the application has raised from
    it. An error of a later statement, which was refused, or of no statement, does not report it.
    """
    for link in _chain(error):
        original = getattr(link, "orig", None)
        if loss is not None and (link is loss or original is loss):
            return True
        if isinstance(original, TransactionLostError):
            return link is error
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, and the errors that it was raised from or while handling."""
    seen = set[int]()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
