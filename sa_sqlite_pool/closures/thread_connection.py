"""The driver connection of a closure: SQL is executed in the closure's own thread.

A function passed to ``run_read()`` or ``run_write()`` runs in SQLite's thread, so its statements
need no hop. SQLAlchemy's ``Connection`` or ``Session`` uses a :class:`ThreadConnection`, which
executes statements at once, only while the function runs, and only in its thread.

SQLite's progress handler (https://www.sqlite.org/c3ref/progress_handler.html) stops statements. It
is called in this thread, in the middle of a statement, so it can never be too early or too late,
as an interrupt from the loop can be.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar, final

from sqlalchemy.pool import PoolProxiedConnection

from ..driver.cursors import Cursor, StreamCursor
from ..driver.executor import Executor
from ..driver.outside_transactions import switching_in_function
from ..driver.rebuilds import keeping_children
from ..errors import ClosureError
from ..execution.raw import mark_closed
from ..execution.replies import NO_REPLY, Execute, Parameters, Reply
from ..functions import refused_inside, rolled_back_inside
from ..settings import Role
from ..sqlite.authorizer import Access
from ..sqlite.driver_errors import dbapi
from ..sqlite.end_watch import EndWatch
from ..sqlite.statements import Kind, changes_settings, delimits, ends_transaction
from ..system.clock import time
from ..transactions.facts import StatementFacts
from ..transactions.locks import Patience, may_pass, pause_here
from ..transactions.streams import OpenStream
from ..turn.permit import shorten
from ..turn.whereabouts import caller_in_thread
from .early_end import Caller, Guarded, Phase

T = TypeVar("T")

# Steps of SQLite's virtual machine between two calls: about ten milliseconds. Each call waits for
# the interpreter lock, which a busy loop releases after five.
PROGRESS_STEPS = 200_000


@final
class ThreadConnection(Guarded):
    """The connection beneath SQLAlchemy's objects in one closure; its transaction is already open.

    :param proxied: the pool's proxy for the connection
    :param caller: knows whether it still waits for the function
    :param on_commit: called when SQLAlchemy commits, after the function has returned; None on a
        reader
    :param alone: whether only the function's own work is lost with the transaction
    """

    # Class attributes for values that few functions need, since each function has a connection.
    _watch: EndWatch | None = None  # while the function has the raw connection
    _wrote = False
    _changes: int | None = None  # total_changes when the function got the raw connection
    touched = False  # the function has changed something that only a check-in resets
    committed = False
    defers = False  # COMMIT may find violated foreign keys

    def __init__(
        self,
        sqlite: sqlite3.Connection,
        executor: Executor,
        proxied: PoolProxiedConnection,
        *,
        caller: Caller,
        on_commit: Callable[[], None] | None = None,
        alone: bool = True,
    ) -> None:
        super().__init__(executor, proxied)
        self.sqlite = sqlite
        self._caller = caller
        self._on_commit = on_commit
        self._alone = alone
        self._thread = get_ident()
        self._streams: set[OpenStream] = set()

    # -- the function ---------------------------------------------------------------------------

    def call(self, function: Callable[[Any], T], target: object) -> T:
        """Run ``function(target)``; raise an error if it has ended the transaction itself."""
        self.phase = Phase.RUNNING
        try:
            result = function(target)
            self._assert_usable()
        except Exception as error:
            self._raise_what_led_to(error)
            raise
        finally:
            self._lost_by = None  # its traceback and this object would form a reference cycle
            if self._watch is not None:
                self._take_back()
            if self._streams:  # they may still write, and would block COMMIT
                self._close_streams()
            self.phase = Phase.ENDING
        return result

    def assert_committed(self) -> None:
        """Raise ClosureError if writes were not committed although SQLAlchemy raised no error."""
        if self.committed:
            return
        if self._wrote or (
            self._changes is not None and self.sqlite.total_changes != self._changes
        ):
            raise ClosureError(
                "the function's transaction was not committed, and none of its writes are kept: "
                "its session or connection was closed inside the function, or commits in its own "
                "way"
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
                # A closed connection keeps its locks until all its statements are freed, too.
                with contextlib.suppress(*dbapi.ProgrammingError):
                    cursor.close()

    # -- statements: the interface that cursors need --------------------------------------------

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
        facts = executor.facts.of(sql)
        kind = facts.kind_of_text
        if kind is Kind.READ:
            self._reads = True
        elif kind is Kind.WRITE and not facts.may_defer and executor.role is not Role.READER:
            self._wrote, self._reads = True, False
            if facts.drops is not None:
                execute = keeping_children(
                    facts.drops, executor.authorizer, executor.rules, execute
                )
        else:
            return self._run_special(facts, kind, parameters, execute, timeout)
        if (permit := executor.transaction.permit) is not None:
            permit.last_sql = sql
        return self._execute(facts, parameters, execute, timeout)

    def _run_special(
        self,
        facts: StatementFacts,
        kind: Kind,
        parameters: Parameters,
        execute: Execute,
        timeout: float | None,
    ) -> Reply:
        """Run a statement whose text has to be examined before or afterwards."""
        executor, sql = self._executor, facts.sql
        self._admit(facts, kind)
        if (kind is Kind.BEGIN or kind is Kind.BEGIN_WRITE) and delimits(sql):
            # Sent by a listener for the `begin` event, as SQLAlchemy's documentation shows.
            return NO_REPLY
        self._wrote = self._wrote or kind.writes
        self._reads = False
        executor.transaction.note(sql)
        if kind is Kind.SETTING:
            execute = switching_in_function(sql, executor.rules, execute)
        if kind.may_change_settings:
            execute = executor.settings.execution(
                sql, kind, executor.rules, executor.role, execute, set_up=False
            )
        with self._explaining(kind) if kind is Kind.EXPLAIN else _nothing:
            try:
                return self._execute(facts, parameters, execute, timeout)
            finally:
                if executor.authorizer.busy_timeout:
                    executor.settings.switch_off_waiting(self.sqlite)

    def _execute(
        self, facts: StatementFacts, parameters: Parameters, execute: Execute, timeout: float | None
    ) -> Reply:
        executor, sql, sqlite, runs = self._executor, facts.sql, self.sqlite, facts.runs
        authorizer = executor.authorizer
        if timeout is not None:
            self._stops_at = time.monotonic() + timeout
        authorizer.denied = authorizer.attempted = None
        authorizer.called = False
        clock = time.perf_counter()
        try:
            try:
                reply = execute(sqlite, sql, parameters)
            except dbapi.OperationalError as error:
                if self._is_tried_again(facts):
                    executor.explain_tried_write(sqlite, facts, parameters, execute, error)
                if not authorizer.attached:
                    raise
                reply = self._try_again(sql, parameters, execute, error)
            if authorizer.attempted is not None and self._is_tried_again(facts):
                reply = executor.check_tried_write(sqlite, facts, parameters, execute, reply)
            runs.ran_in_thread(time.perf_counter() - clock)
            return reply
        except dbapi.failures() as error:
            runs.failed += 1
            self._explain(error, sql, timeout)
            raise
        finally:
            self._stops_at = None
            if authorizer.called:
                facts.called_functions()
            if (seconds := time.perf_counter() - clock) >= executor.policy.slow_after:
                self._note_slow(sql, seconds)

    def _try_again(
        self, sql: str, parameters: Parameters, execute: Execute, error: Exception
    ) -> Reply:
        """Wait for the lock on an attached file, as SQLite's busy timeout would, or raise.

        Before Python 3.11, do not wait, since ``sqlite3`` does not report whether that can help.
        """
        rules, transaction = self._executor.rules, self._executor.transaction
        if transaction.attached.out_of_date:
            transaction.attached.learn(self.sqlite)
        may_wait = transaction.own_lock(error) is None
        patience = Patience(rules, transaction.permit, writing=True)
        while may_wait and may_pass(error, in_transaction=True) and patience.seconds_left > 0:
            self.assert_wanted()
            began = time.monotonic()
            pause_here()
            if self._stops_at is not None:  # the wait does not count as running time
                self._stops_at += time.monotonic() - began
            try:
                return execute(self.sqlite, sql, parameters)
            except dbapi.OperationalError as latest:
                error = latest
        raise error

    def _note_slow(self, sql: str, seconds: float) -> None:
        rules, permit = self._executor.rules, self._executor.transaction.permit
        place = caller_in_thread()
        rules.slow_statements.report(rules.label, sql, seconds, permit, place)

    def _is_tried_again(self, facts: StatementFacts) -> bool:
        """Return whether a read on a reader tried to write, so that it runs again to find out."""
        executor = self._executor
        return (
            executor.authorizer.attempted is not None
            and executor.role is Role.READER
            and facts.kind_of_text is Kind.READ
        )

    def run_in_thread(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        self._assert_usable()
        if timeout is not None:
            self._stops_at = time.monotonic() + timeout
        authorizer = self._executor.authorizer
        authorizer.denied = authorizer.attempted = None
        try:
            return call()
        except dbapi.failures() as error:
            self._explain(error, "fetching", timeout)
            raise
        finally:
            self._stops_at = None

    def run_briefly(self, call: Callable[[], T]) -> T:
        self._assert_here()
        return call()

    def _admit(self, facts: StatementFacts, kind: Kind) -> None:
        sql = facts.sql
        reader = self._executor.role is Role.READER
        if reader and (kind is Kind.BEGIN_WRITE or kind is Kind.MAINTENANCE):
            raise self._executor.rules.forbidden(shorten(sql))
        begins = kind is Kind.BEGIN or kind is Kind.BEGIN_WRITE
        if begins and self.phase is not Phase.STARTING:
            raise refused_inside(shorten(sql))
        if kind is Kind.END and ends_transaction(sql):
            raise refused_inside(shorten(sql))
        if kind.may_change_settings and changes_settings(sql):
            self._executor.settings_changed = self.touched = True
            self._executor.policy.settings_may_have_changed()
        if facts.may_defer:
            self.defers = True

    @contextlib.contextmanager
    def _explaining(self, kind: Kind) -> Any:
        # EXPLAIN compiles a statement but does not run it, even one that would write.
        authorizer = self._executor.authorizer
        with authorizer.allowing(Access.EXAMINED):
            yield

    # -- what SQLAlchemy expects of a driver connection -----------------------------------------

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
            self._misuse = refused_inside(
                f"{sql} on the driver's connection (executescript() sends COMMIT first)"
            )

    def _take_back(self) -> None:
        """Allow SQLite's connection to end the transaction again; note if it was closed."""
        assert self._watch is not None
        watch, self._watch = self._watch, None
        try:
            watch.end()
        except dbapi.ProgrammingError:
            mark_closed(self._executor.worker.aiosqlite_connection)

    @property
    def _connection_record(self) -> Any:
        """The record in which SQLAlchemy notes options to reset at check-in."""
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
        # An engine's option is set before the function runs, and is meant for other connections.
        if level is None and self.phase is not Phase.STARTING:
            raise refused_inside("isolation_level='AUTOCOMMIT'")

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
        """Commit after the function, for SQLAlchemy; before, do nothing; within, raise an error."""
        if self.phase is Phase.RUNNING:
            self._misuse = refused_inside("commit()")
            raise self._misuse
        if self.phase is Phase.ENDING and self._on_commit is not None:
            if self._watch is not None:
                self._take_back()
            self._assert_usable()
            self._on_commit()
            self.committed = True

    def rollback(self) -> None:
        """Do nothing after the function: SQLAlchemy's transaction rolls back.

        SQLAlchemy also calls this within the function, after a failed flush, whose error must not
        be hidden; so the next call is refused.
        """
        if self.phase is Phase.RUNNING and self._misuse is None:
            self._misuse = rolled_back_inside()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Leave the connection as it is: its owner knows its state."""
        self.rollback()

    def detach(self) -> None:
        raise refused_inside("detach()")

    def __repr__(self) -> str:
        return f"<ThreadConnection {self._executor.rules.label} {self.phase.name.lower()}>"


_nothing: contextlib.nullcontext[None] = contextlib.nullcontext()
