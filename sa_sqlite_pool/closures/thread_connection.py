"""The driver connection of a closure: SQL is executed in the closure's own thread.

A function given to ``run_read()`` or ``run_write()`` runs in SQLite's thread, so its statements
need no hop. SQLAlchemy's ``Connection`` or ``Session`` works on a :class:`ThreadConnection`, which
executes at once, while the function runs, and in its thread only.

SQLite's progress handler (https://www.sqlite.org/c3ref/progress_handler.html) stops what must stop.
It is called in this thread, in the middle of a statement, so that nothing comes too early or too
late, as an interrupt from the loop may.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import sqlite3
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol, TypeVar, final

from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import PoolProxiedConnection

from ..driver.cursors import Cursor, StreamCursor
from ..driver.executor import Executor
from ..driver.outside_transactions import switching_in_function
from ..errors import ClosureError, TransactionLostError
from ..execution.replies import NO_REPLY, Execute, Parameters, Reply
from ..settings import Role
from ..sqlite.authorizer import Access
from ..sqlite.driver_errors import dbapi, is_read_only
from ..sqlite.shared_hooks import watch_progress
from ..sqlite.statements import Kind, changes_settings, ends_transaction, may_defer
from ..sqlite.watch import EndWatch
from ..transactions.facts import StatementFacts
from ..transactions.streams import OpenStream
from ..turn.permit import shorten
from ..turn.snapshots import Snapshot
from .borrowed import BorrowedConnection
from .losses import comes_from

T = TypeVar("T")

# Steps of SQLite's virtual machine between two calls: some ten milliseconds. Each call waits for
# the interpreter lock, which a busy loop releases after five.
PROGRESS_STEPS = 200_000

_BY_DRIVER = "by a statement on the driver's connection"

_ROLLED_BACK = (
    "its transaction was rolled back inside: use begin_nested() for the part that may fail, or "
    "let the error out, which rolls back everything"
)


class Phase(enum.Enum):
    """The life of a :class:`ThreadConnection`; it only moves downwards."""

    STARTING = enum.auto()  # SQLAlchemy begins its transaction and calls listeners
    RUNNING = enum.auto()  # the function runs
    ENDING = enum.auto()  # it has returned: the last flush, then the end of the transaction
    ENDED = enum.auto()


class Caller(Protocol):
    """The call that has a function run."""

    @property
    def cancelled(self) -> bool:
        """True if it does not wait for the function any more."""


@final
class ThreadConnection(BorrowedConnection):
    """The connection beneath SQLAlchemy's objects in one closure; the transaction is open already.

    :param fairy: the pool's proxy of the connection
    :param caller: knows whether it waits for the function still
    :param on_commit: called when SQLAlchemy commits, after the function has returned; None on a
        reader
    :param alone: whether only the function's own work is lost with the transaction

    SQLite rolls the whole transaction back when it stops a statement that writes. So that is only
    done if the work is the function's own, or if all is lost anyway; see :meth:`look`.
    """

    # Class attributes for what few functions need, since each function has a connection.
    _misuse: ClosureError | None = None
    _watch: EndWatch | None = None  # while the function has the raw connection
    _lost_by: BaseException | None = None  # the error with which SQLite ended the transaction
    _wrote = False
    _changes: int | None = None  # total_changes when the function got the raw connection
    touched = False  # it has done to the connection what only a check-in undoes
    _reads = False  # the running statement writes nothing
    _stops_at: float | None = None
    _too_old: Callable[[], Exception] | None = None  # makes the error of a read ended early
    committed = False
    defers = False  # COMMIT may find violated foreign keys
    phase = Phase.STARTING

    def __init__(
        self,
        sqlite: sqlite3.Connection,
        executor: Executor,
        fairy: PoolProxiedConnection,
        *,
        caller: Caller,
        on_commit: Callable[[], None] | None = None,
        alone: bool = True,
    ) -> None:
        super().__init__(executor, fairy)
        self.sqlite = sqlite
        self._caller = caller
        self._on_commit = on_commit
        self._alone = alone
        self._thread = get_ident()
        self._streams: set[OpenStream] = set()

    def watch(self) -> None:
        """Have SQLite ask this object, until the handler is removed, whether to go on."""
        self._executor.policy.other_work_begins(self.sqlite)
        watch_progress(self.sqlite, self.look, PROGRESS_STEPS)

    # -- the function ---------------------------------------------------------------------------

    def call(self, function: Callable[[Any], T], target: object) -> T:
        """Run ``function(target)``; raise an error if it has ended its transaction itself."""
        self.phase = Phase.RUNNING
        try:
            result = function(target)
            self._assert_usable()
        except Exception as error:
            self._raise_what_led_to(error)
            raise
        finally:
            self._lost_by = None  # with its traceback and this object it is a reference cycle
            if self._watch is not None:
                self._take_back()
            if self._streams:  # which may still write, and would be in the way of COMMIT
                self._close_streams()
            self.phase = Phase.ENDING
        return result

    def assert_committed(self) -> None:
        """Raise ClosureError if SQLAlchemy has not committed what was written, without an error."""
        beneath = self._changes is not None and self.sqlite.total_changes != self._changes
        if not self.committed and (self._wrote or beneath):
            raise ClosureError(
                "its transaction was not committed, and nothing of it is kept: its session or "
                "connection was closed inside, or commits in a way of its own"
            )

    def end(self) -> None:
        """Stop all use of SQLite's connection. A second call does nothing."""
        if self._watch is not None:
            self._take_back()
        self.phase = Phase.ENDED
        if self._streams:
            self._close_streams()

    def _close_streams(self) -> None:
        for stream in list(self._streams):
            if (cursor := stream.detach()) is not None:
                cursor.close()

    # -- statements: what cursors ask for -------------------------------------------------------

    @property
    def executor(self) -> Executor:
        """The executor of SQLite's connection outside closures."""
        return self._executor

    @property
    def statement_timeout(self) -> float | None:
        return self._executor.rules.statement_timeout

    def run_statement(
        self,
        sql: str,
        parameters: Parameters,
        execute: Execute,
        *,
        atomic: bool = False,
        stream: bool = False,
        timeout: float | None = None,
    ) -> Reply:
        self._assert_usable()
        executor = self._executor
        facts = executor.policy.facts.of(sql)
        kind = facts.kind_of_text
        if kind is Kind.READ and executor.role is Role.READER:
            return self._read(facts, parameters, execute, timeout)
        self._admit(sql, kind)
        if kind is Kind.BEGIN or kind is Kind.BEGIN_WRITE:
            # Sent by a listener of the `begin` event, as SQLAlchemy's documentation shows.
            return NO_REPLY
        self._wrote = self._wrote or kind.writes
        executor.transaction.note(sql)
        self._reads = kind is Kind.READ
        if kind is Kind.SETTING:
            execute = switching_in_function(sql, executor.rules, execute)
        with self._explaining(kind) if kind is Kind.EXPLAIN else _nothing:
            return self._run_counted(facts, parameters, execute, timeout)

    def _read(
        self, facts: StatementFacts, parameters: Parameters, execute: Execute, timeout: float | None
    ) -> Reply:
        """Run a read on a reader: what :meth:`run_statement` does, in fewer calls."""
        executor, sql, sqlite = self._executor, facts.sql, self.sqlite
        authorizer, checkout = executor.policy.authorizer, executor.transaction.checkout
        if checkout is not None:
            checkout.last_sql = sql
        self._reads = True
        if timeout is not None:
            self._stops_at = time.monotonic() + timeout
        authorizer.denied = authorizer.attempted = None
        authorizer.called = False
        clock = time.perf_counter()
        try:
            try:
                reply = execute(sqlite, sql, parameters)
            except dbapi.OperationalError as error:
                if authorizer.attempted is not None:
                    executor.blame_read(sqlite, facts, parameters, execute, error)
                raise
            if authorizer.attempted is not None:
                reply = executor.weigh_read(sqlite, facts, parameters, execute, reply)
            facts.runs.ran_in_thread(time.perf_counter() - clock)
            return reply
        except dbapi.failures() as error:
            facts.runs.failed += 1
            self._explain(error, sql, timeout)
            raise
        finally:
            self._stops_at = None
            if authorizer.called:
                facts.calls_functions = True

    def _run_counted(
        self, facts: StatementFacts, parameters: Parameters, execute: Execute, timeout: float | None
    ) -> Reply:
        clock, runs = time.perf_counter(), facts.runs
        try:
            reply = self._run(
                lambda: execute(self.sqlite, facts.sql, parameters), facts.sql, timeout
            )
        except dbapi.failures():
            runs.failed += 1
            raise
        runs.ran_in_thread(time.perf_counter() - clock)
        return reply

    def run_in_thread(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        self._assert_usable()
        return self._run(call, "fetching", timeout)

    def run_briefly(self, call: Callable[[], T]) -> T:
        self._assert_here()
        return call()

    def _run(self, call: Callable[[], T], sql: str, timeout: float | None) -> T:
        if timeout is not None:
            self._stops_at = time.monotonic() + timeout
        authorizer = self._executor.policy.authorizer
        authorizer.denied = authorizer.attempted = None
        authorizer.called = False
        try:
            return call()
        except dbapi.failures() as error:
            self._explain(error, sql, timeout)
            raise
        finally:
            self._stops_at = None
            if authorizer.called:
                self._executor.policy.facts.of(sql).calls_functions = True

    def _admit(self, sql: str, kind: Kind) -> None:
        if kind is Kind.READ:
            return
        reader = self._executor.role is Role.READER
        if reader and (kind is Kind.BEGIN_WRITE or kind is Kind.MAINTENANCE):
            raise self._executor.rules.forbidden(shorten(sql))
        begins = kind is Kind.BEGIN or kind is Kind.BEGIN_WRITE
        if begins and self.phase is not Phase.STARTING:
            raise self._refused(shorten(sql))
        if kind is Kind.END and ends_transaction(sql):
            raise self._refused(shorten(sql))
        if kind.may_change_settings and changes_settings(sql):
            self._executor.settings_changed = self.touched = True
            self._executor.policy.settings_may_have_changed()
        if may_defer(sql):
            self.defers = True

    @contextlib.contextmanager
    def _explaining(self, kind: Kind) -> Any:
        # EXPLAIN compiles a statement and does not run it, even one that would write.
        authorizer = self._executor.policy.authorizer
        with authorizer.allowing(Access.EXAMINED):
            yield

    # -- what may go wrong ----------------------------------------------------------------------

    def look(self) -> bool:
        """Return whether to stop the running statement. Called by SQLite."""
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
                f"{self!r} belongs to one thread: use it in the function that it was given to, "
                "and take with you what you have read"
            )
        if self.phase is Phase.ENDED:
            raise ClosureError(
                f"{self!r} was used after its function had returned: read everything inside, for "
                "example with .all(), and return that"
            )

    def _assert_usable(self) -> None:
        executor = self._executor
        if (  # what _assert_here() and _assert_going_on() ask, without the calls
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
        """Have the function stop at once, and raise ``error()`` from what it executes."""
        self._too_old = error

    def _assert_not_too_old(self) -> None:
        if self._too_old is not None:
            raise self._too_old()

    def notice_end(self) -> None:
        """Note a transaction that was ended by something that bypassed this object."""
        if not self.sqlite.in_transaction:
            executor = self._executor
            if not (executor.worker.closed or executor.transaction.lost):
                executor.transaction.note_loss(True, sqlite3.OperationalError(_BY_DRIVER))

    def _raise_what_led_to(self, error: Exception) -> None:
        """Raise the cause of an error that would be misleading by itself."""
        self.notice_end()
        if self._misuse is not None and isinstance(error, sqlite3.Error):
            raise self._misuse from error  # EndWatch's: SQLite says "not authorized"
        try:
            self._executor.transaction.assert_not_lost()
        except TransactionLostError as lost:
            if not comes_from(error, self._lost_by):
                raise OperationalError(None, None, lost) from error

    def assert_wanted(self) -> None:
        """Raise what the caller gets if no task waits for the result."""
        self._executor.worker.assert_usable()
        if self._caller.cancelled:
            raise asyncio.CancelledError

    def _explain(self, error: Exception, sql: str, timeout: float | None) -> None:
        executor = self._executor
        executor.transaction.note_loss(True, error)
        if self._lost_by is None and executor.transaction.lost:
            self._lost_by = error
        authorizer = executor.policy.authorizer
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
            return  # stopped by a progress handler of the application
        lost = executor.transaction.lost
        raise executor.rules.took_too_long(sql, timeout, lost=lost) from error

    def _refused(self, what: str) -> ClosureError:
        return ClosureError(
            f"{what}: run_write() and run_read() begin the transaction, and end it when the "
            "function returns; use begin_nested() for a part that may be rolled back"
        )

    # -- what SQLAlchemy asks of a driver connection --------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection:  # type: ignore[override]
        """The raw connection, for ``driver_connection``."""
        self._assert_here()
        policy = self._executor.policy
        policy.functions_may_have_changed()
        if self._watch is None:
            self._watch = EndWatch(self.sqlite, policy.authorizer, self._note_denied_end)
            self._watch.begin()
            self._changes = self.sqlite.total_changes
            self.touched = True
        return self.sqlite

    def _note_denied_end(self, sql: str) -> None:
        if self._misuse is None:
            self._misuse = self._refused(
                f"{sql} on the driver's connection (executescript() sends COMMIT first)"
            )

    def _take_back(self) -> None:
        """Allow SQLite's connection to end the transaction again."""
        assert self._watch is not None
        self._watch.end()
        self._watch = None

    @property
    def _connection_record(self) -> Any:
        """The record where SQLAlchemy notes options to be reset at check-in."""
        self.touched = True
        return super()._connection_record

    @property
    def is_valid(self) -> bool:
        return self.phase is not Phase.ENDED

    @property
    def in_transaction(self) -> bool:
        return self.phase is not Phase.ENDED and self.sqlite.in_transaction

    @property
    def isolation_level(self) -> str | None:
        return ""

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        # An option of the engine is set before the function, and is for other connections.
        if level is None and self.phase is not Phase.STARTING:
            raise self._refused("isolation_level='AUTOCOMMIT'")

    def cursor(self, server_side: bool = False) -> Cursor | StreamCursor:
        return StreamCursor(self, self, self._streams) if server_side else Cursor(self, self)

    def execute(self, operation: str, parameters: Any = None) -> Cursor:
        cursor = Cursor(self, self)
        cursor.execute(operation, parameters)
        return cursor

    def create_function(self, *args: Any, **kw: Any) -> None:
        self._executor.policy.functions_may_have_changed()
        self.run_briefly(lambda: self.sqlite.create_function(*args, **kw))

    def commit(self) -> None:
        """Commit after the function, for SQLAlchemy; before it, do nothing; within it, raise."""
        if self.phase is Phase.RUNNING:
            self._misuse = self._refused("commit()")
            raise self._misuse
        if self.phase is Phase.ENDING and self._on_commit is not None:
            if self._watch is not None:
                self._take_back()
            self._assert_going_on()
            self._on_commit()
            self.committed = True

    def rollback(self) -> None:
        """Do nothing after the function: SQLAlchemy's transaction rolls back.

        Within it, SQLAlchemy calls this, too, after a failed flush, whose error must not be hidden;
        so the next call is refused.
        """
        if self.phase is Phase.RUNNING and self._misuse is None:
            self._misuse = ClosureError(_ROLLED_BACK)

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Leave the connection as it is: its owner knows its state."""
        self.rollback()

    def detach(self) -> None:
        raise self._refused("detach()")

    def __repr__(self) -> str:
        return f"<ThreadConnection {self._executor.rules.label} {self.phase.name.lower()}>"


_nothing: contextlib.nullcontext[None] = contextlib.nullcontext()
