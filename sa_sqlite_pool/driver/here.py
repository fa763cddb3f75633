"""SQL where it is asked for: the connection of a function that runs in a thread.

A function given to ``run_read()`` or ``run_write()`` runs where SQLite does, so its statements hop
nowhere. SQLAlchemy's ``Connection`` or ``Session`` works on a :class:`HereConnection`, which
executes at once, while the function runs, and in its thread alone.

What must stop is stopped by SQLite's progress handler (https://www.sqlite.org/c3ref/progress_handler.html).
It is called in this thread, in the middle of a statement, so that nothing comes too early or too
late, as an interrupt from the loop may.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, final

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.pool import PoolProxiedConnection

from ..errors import ClosureError
from ..settings import Role
from ..turn.permit import shorten
from .cursors import Cursor, StreamCursor
from .executor import Executor
from .guard import Access
from .statements import Kind, changes_settings, classify, ends_transaction, may_defer
from .transaction import SQLITE_ERRORS

T = TypeVar("T")

# Steps of SQLite's virtual machine between two looks: some ten milliseconds. Each look waits for
# the interpreter lock, which a busy loop lets go of after five.
_INSTRUCTIONS = 200_000

_ROLLED_BACK = (
    "its transaction was rolled back inside: use begin_nested() for the part that may fail, or "
    "let the error out, which rolls back everything"
)


class Phase(enum.Enum):
    """The life of a :class:`HereConnection`; it goes downwards only."""

    RUNNING = enum.auto()  # the function runs
    ENDING = enum.auto()  # it has returned: what is left to flush, then the end of the transaction
    ENDED = enum.auto()


@final
class HereConnection(AdaptedConnection):
    """What SQLAlchemy's objects work on inside one function; the transaction is open already.

    :param fairy: the connection as it came from the pool
    :param cancelled: whether the caller does not wait for the function any more
    :param on_commit: called when SQLAlchemy commits, after the function has returned
    :param alone: whether nobody else's work is lost with the transaction

    SQLite rolls the whole transaction back when it stops a statement that writes. So that is only
    done where the work is the function's own, or where all is lost anyway; see :meth:`_look`.
    """

    __slots__ = (
        "_alone",
        "_cancelled",
        "_executor",
        "_fairy",
        "_misuse",
        "_on_commit",
        "_reads",
        "_stops_at",
        "_streams",
        "_thread",
        "defers",
        "phase",
        "sqlite",
    )

    def __init__(
        self,
        sqlite: sqlite3.Connection,
        executor: Executor,
        fairy: PoolProxiedConnection,
        *,
        cancelled: Callable[[], bool],
        on_commit: Callable[[], None],
        alone: bool,
    ) -> None:
        self.sqlite = sqlite
        self._executor = executor
        self._fairy = fairy
        self._cancelled = cancelled
        self._on_commit = on_commit
        self._alone = alone
        self._thread = threading.get_ident()
        self._streams: set[StreamCursor] = set()
        self._misuse: ClosureError | None = None
        self._reads = False  # the running statement writes nothing
        self._stops_at: float | None = None
        self.phase = Phase.RUNNING
        self.defers = False  # COMMIT may find violated foreign keys
        executor.placing.other_work_begins(sqlite)
        sqlite.set_progress_handler(self._look, _INSTRUCTIONS)

    # -- the function ---------------------------------------------------------------------------

    def call(self, function: Callable[[], T]) -> T:
        """Run it; an error if it has ended its transaction itself."""
        try:
            result = function()
        finally:
            self.phase = Phase.ENDING
        self._assert_going_on()
        return result

    def end(self) -> None:
        """From now on nothing here touches SQLite's connection. More than once does nothing."""
        self.phase = Phase.ENDED
        for stream in list(self._streams):
            if (cursor := stream.detach()) is not None:
                cursor.close()

    # -- statements: what cursors ask for -------------------------------------------------------

    @property
    def statement_timeout(self) -> float | None:
        return self._executor.rules.statement_timeout

    def run_statement(
        self,
        sql: str,
        call: Callable[[sqlite3.Connection], T],
        *,
        atomic: bool = False,
        stream: bool = False,
        timeout: float | None = None,
    ) -> T:
        self._assert_usable()
        kind = classify(sql)
        self._admit(sql, kind)
        self._executor.transaction.note(sql)
        self._reads = kind is Kind.READ
        with self._explaining(kind) if kind is Kind.EXPLAIN else _nothing:
            return self._run(lambda: call(self.sqlite), sql, timeout)

    def run_in_thread(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        self._assert_usable()
        return self._run(call, "fetching", timeout)

    def run_briefly(self, call: Callable[[], T]) -> T:
        self._assert_here()
        return call()

    def _run(self, call: Callable[[], T], sql: str, timeout: float | None) -> T:
        if timeout is not None:
            self._stops_at = time.monotonic() + timeout
        guard = self._executor.placing.guard
        guard.denied, guard.called = None, False
        try:
            return call()
        except SQLITE_ERRORS as error:
            self._explain(error, sql, timeout)
            raise
        finally:
            self._stops_at = None
            if guard.called:
                self._executor.placing.note_function_call(sql)

    def _admit(self, sql: str, kind: Kind) -> None:
        if kind is Kind.READ:
            return
        reader = self._executor.role is Role.READER
        if reader and (kind is Kind.BEGIN_WRITE or kind is Kind.MAINTENANCE):
            raise self._executor.rules.forbidden(shorten(sql))
        if kind is Kind.BEGIN or kind is Kind.BEGIN_WRITE:
            raise self._refused(shorten(sql))
        if kind is Kind.END and ends_transaction(sql):
            raise self._refused(shorten(sql))
        if kind.may_change_settings and changes_settings(sql):
            self._executor.settings_changed = True
            self._executor.placing.settings_may_have_changed()
        if may_defer(sql):
            self.defers = True

    @contextlib.contextmanager
    def _explaining(self, kind: Kind) -> Any:
        # It compiles a statement and does not run it, even one that would write.
        guard = self._executor.placing.guard
        resting, guard.access = guard.access, Access.ALL
        try:
            yield
        finally:
            guard.access = resting

    # -- what may go wrong ----------------------------------------------------------------------

    def _look(self) -> bool:
        """Whether to stop the statement in the middle. Called by SQLite."""
        if self._stops_at is not None and time.monotonic() >= self._stops_at:
            return True
        worker = self._executor.worker
        if worker.closed or worker.must_stop:
            return True
        return self._cancelled() and (self._alone or self._reads)

    def _assert_here(self) -> None:
        if self._thread != threading.get_ident():
            raise ClosureError(
                f"{self!r} belongs to one thread: use it in the function that it was given to, "
                "and take with you what you have read"
            )
        if self.phase is Phase.ENDED:
            raise ClosureError(
                f"{self!r} was used after its function had returned: read everything inside, for "
                "example with .all(), and return that"
            )

    def _assert_usable(self) -> None:
        self._assert_here()
        self._assert_going_on()

    def _assert_going_on(self) -> None:
        if self._misuse is not None:
            raise self._misuse
        executor = self._executor
        executor.transaction.assert_not_lost()
        executor.transaction.reading.assert_not_ended()
        self.assert_wanted()

    def assert_wanted(self) -> None:
        """Raise what the caller gets if nobody waits for the result."""
        worker = self._executor.worker
        worker.assert_usable()
        if worker.must_stop or self._cancelled():
            raise asyncio.CancelledError

    def _explain(self, error: Exception, sql: str, timeout: float | None) -> None:
        executor = self._executor
        executor.transaction.note_loss(True, error)
        if denied := executor.placing.guard.denied:
            raise executor.rules.forbidden(denied) from error
        if str(error) != "interrupted":
            return
        executor.transaction.reading.assert_not_ended()
        self.assert_wanted()
        lost = executor.transaction.lost
        raise executor.rules.took_too_long(sql, timeout, lost=lost) from error

    def _refused(self, what: str) -> ClosureError:
        return ClosureError(
            f"{what}: run_write() and run_read() begin the transaction, and end it when the "
            "function returns; use begin_nested() for a part that may be rolled back"
        )

    # -- what SQLAlchemy asks of a driver connection, and of one from a pool --------------------

    @property
    def dbapi(self) -> Any:
        return self._fairy.dbapi_connection.dbapi  # type: ignore[union-attr]

    @property
    def dbapi_connection(self) -> HereConnection:
        return self

    @property
    def _connection(self) -> sqlite3.Connection:  # type: ignore[override]
        """The raw connection, for ``driver_connection``."""
        self._assert_here()
        self._executor.placing.functions_may_have_changed()
        return self.sqlite

    @property
    def info(self) -> Any:
        return self._fairy.info

    @property
    def record_info(self) -> Any:
        return self._fairy.record_info

    @property
    def is_valid(self) -> bool:
        return self.phase is not Phase.ENDED

    @property
    def is_detached(self) -> bool:
        return False

    @property
    def isolation_level(self) -> str | None:
        return ""

    @property
    def long_read(self) -> bool:
        return self._executor.transaction.reading.long

    @long_read.setter
    def long_read(self, value: bool) -> None:
        self._executor.transaction.reading.long = value

    def cursor(self, server_side: bool = False) -> Cursor:
        return StreamCursor(self, self._streams) if server_side else Cursor(self)

    def execute(self, operation: str, parameters: Any = None) -> Cursor:
        cursor = self.cursor()
        cursor.execute(operation, parameters)
        return cursor

    def create_function(self, *args: Any, **kw: Any) -> None:
        self._executor.placing.functions_may_have_changed()
        self.run_briefly(lambda: self.sqlite.create_function(*args, **kw))

    def commit(self) -> None:
        """At the end only: by whoever began the transaction."""
        if self.phase is Phase.RUNNING:
            self._misuse = self._refused("commit()")
            raise self._misuse
        if self.phase is Phase.ENDING:
            self._on_commit()

    def rollback(self) -> None:
        """At the end, nothing: whoever began the transaction rolls back.

        Before, also SQLAlchemy calls this, after a failed flush, whose error nothing must hide; so
        it is what comes next that is refused.
        """
        if self.phase is Phase.RUNNING and self._misuse is None:
            self._misuse = ClosureError(_ROLLED_BACK)

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """The connection stays as it is: whoever lent it knows how it stands."""
        self.rollback()

    def detach(self) -> None:
        raise self._refused("detach()")

    def close(self) -> None:
        """Nothing: it was lent."""

    def _close_special(self, transaction_reset: bool = False) -> None:
        """The same, as SQLAlchemy's ``Connection`` says it."""

    def __repr__(self) -> str:
        return f"<HereConnection {self._executor.rules.label} {self.phase.name.lower()}>"


_nothing: contextlib.nullcontext[None] = contextlib.nullcontext()
