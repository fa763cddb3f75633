"""The execution of statements on one connection, under its rules.

Python's ``sqlite3`` begins transactions implicitly, only before DML, never for SELECT, DDL or
SAVEPOINT. That is switched off (``isolation_level=None``); BEGIN is sent with the first statement
that needs it, in the same hop. ``in_transaction`` is SQLite's own answer, not a copy that could
disagree with the database; while another thread uses the connection, it is the last answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable
from typing import TypeVar, final

from greenlet import getcurrent

from ..compat.greenlets import Spawned
from ..compat.without_loop import refuse_without_loop
from ..errors import ConfigurationError
from ..execution.connection_thread import ConnectionThread
from ..execution.jobs import OutOfTime
from ..execution.loop_budget import LoopBudget
from ..execution.one_at_a_time import OneAtATime
from ..execution.replies import Execute, Parameters, Reply, execute_at_once
from ..settings import Role
from ..sqlite.authorizer import Access
from ..sqlite.driver_errors import dbapi
from ..sqlite.examination import learn_shadow_tables
from ..sqlite.shared_hooks import ask_again
from ..sqlite.statements import Kind
from ..system.loop_state import of_running_loop
from ..transactions.facts import StatementFacts
from ..transactions.placement import NotInline, PlacementPolicy
from ..transactions.rules import Plan, Rules, decide
from .attempts import TriesStatements
from .performing import Misjudged
from .statement import Statement

T = TypeVar("T")


@final
class Executor(TriesStatements):
    """Executes statements on one connection. Called in a greenlet, it waits with ``await_only``.

    What a statement has to wait for, its attempts and its way to a thread are in
    :class:`~.attempts.TriesStatements`; here are the line of tasks, and reads on the loop.

    ``misuse`` is raised at the next statement. ``ready`` is False while :meth:`make_ready` still
    has to be called before the application gets the connection.
    """

    __slots__ = ("_gate", "misuse", "ready", "statement_timeout")

    def __init__(self, worker: ConnectionThread, policy: PlacementPolicy, rules: Rules) -> None:
        super().__init__(worker, policy, rules)
        self.misuse: ConfigurationError | None = None
        self.statement_timeout = rules.statement_timeout  # the default of cursors
        policy.slow_after = rules.slow_statements.limit
        policy.note_slow = weakref.WeakMethod(self.transaction.note_slow)
        self._gate = OneAtATime()
        self.ready = rules.role is not Role.READER

    # -- statements -----------------------------------------------------------------------------

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
        """Run ``sql`` with ``execute``, in one hop with any BEGIN that it needs, or inline.

        ``atomic`` (executemany) means all or nothing, even in AUTOCOMMIT. ``stream``: the rows are
        fetched later. ``timeout`` limits the run, in seconds; waits have their own limits.
        """
        if self.misuse is not None:
            raise self.misuse
        transaction, gate = self.transaction, self._gate
        if gate.busy:
            transaction.wait_for(gate.enter())
        else:
            gate.busy = True
        try:
            if transaction.lost_by is not None or transaction.too_old is not None:
                transaction.assert_going_on()
            facts = self.facts.of(sql)
            statement = Statement(facts, parameters, execute, atomic=atomic)
            many = atomic or stream
            # A write in AUTOCOMMIT also commits.
            if self.policy.is_inline(facts, many=many, timeout=timeout) and (
                not facts.kind.writes
                or not self.autocommit
                or self.policy.end_is_inline(self.rules.keeper)
            ):
                self._pause()
                statement.inline = True
                if facts.kind is Kind.READ and (reply := self._read_inline(statement)) is not None:
                    return reply
            statement.timeout = timeout
            return self._attempt_until_done(statement)
        finally:
            if gate.waiting:
                gate.leave()
            else:
                gate.busy = False

    def _pause(self) -> None:
        """Let other tasks run from time to time, before work on the loop."""
        try:
            budget = of_running_loop(LoopBudget)
        except RuntimeError:
            refuse_without_loop()
            raise
        pause = budget.pause(asyncio.current_task())
        # SQLAlchemy's own methods require an await, even one that takes no time.
        if pause.long or not isinstance(getcurrent(), Spawned):
            self.transaction.wait_for(pause)
            if self.transaction.too_old is not None:  # set during the wait
                self.transaction.assert_not_too_old()

    def _read_inline(self, statement: Statement) -> Reply | None:
        """Run a read that is known to be short, inline.

        Return None if it needs the general path: because it has to wait, cannot run here, or has
        failed, since errors are explained on that path.
        """
        transaction, worker = self.transaction, self.worker
        connection = worker.idle_connection
        if connection is None:
            return None
        was_open, has_turn = connection.in_transaction, transaction.writing.claim is not None
        alone = self.autocommit or transaction.permit is None
        _, needs_turn, plan = decide(
            Kind.READ, self._performing.role, self._swaps_in, has_turn, alone, was_open, False
        )
        if needs_turn or not (has_turn or transaction.begin_read()):
            return None
        transaction.note(statement.sql)
        try:
            return self.policy.run_inline(
                worker, statement.facts, Kind.READ, self._performing.perform, plan, statement
            )
        except (NotInline, Misjudged):
            statement.inline = False
        except dbapi.failures() as error:
            transaction.note_loss(was_open, error)
            if transaction.lost or not isinstance(error, dbapi.Error):
                raise
        finally:
            transaction.after_inline_read(connection)
        return None

    def run_in_thread(self, call: Callable[[], T], *, timeout: float | None = None) -> T:
        """Run work that neither begins nor ends a transaction, such as a fetch, in one hop."""
        was_open = self.worker.in_transaction
        if (permit := self.transaction.permit) is not None:
            permit.idle_since = None
        guards = self.authorizer.functions_may_write and self._is_without_turn

        def function(connection: sqlite3.Connection) -> T:
            self.policy.other_work_begins(connection)
            try:
                return self._guarded(connection, call) if guards else call()
            finally:
                self.worker.note_open(connection)

        try:
            return self.transaction.run(function, timeout=timeout)
        except dbapi.failures(OutOfTime) as error:
            self.transaction.assert_not_too_old()
            self.transaction.note_loss(was_open, error)
            if isinstance(error, OutOfTime):
                raise self._took_too_long("fetching", timeout) from None
            raise
        finally:
            self.transaction.after_work()

    @property
    def _is_without_turn(self) -> bool:
        """True if the connection might write, but does not hold the turn."""
        without = self.transaction.writing.claim is None and not self.worker.lent
        return without and self.role is not Role.READER and (self._swaps_in or self.autocommit)

    def _guarded(self, connection: sqlite3.Connection, call: Callable[[], T]) -> T:
        """Return ``call()``, a fetch, but refuse what a function in it writes for a later row.

        A function may also read an R-tree for the first time there, which compiles its writes.
        """
        authorizer = self.authorizer
        learn_shadow_tables(connection, authorizer)
        authorizer.denied = None
        if authorizer.compiled_writes:  # while it held the turn: SQLite must ask again
            ask_again(connection, authorizer)
            authorizer.compiled_writes = False
        try:
            with authorizer.allowing(Access.NO_WRITES):
                return call()
        finally:
            if authorizer.denied is not None:  # even if the function has swallowed the error
                raise self.rules.without_turn(authorizer.denied)

    def run_briefly(self, call: Callable[[], T]) -> T:
        """Run work that neither waits nor reads the file: on the loop if the thread is idle."""
        if not self.worker.may_run_inline:
            return self.run_in_thread(call)
        result = self.policy.run_briefly(self.worker, lambda _: call())
        self.transaction.after_work()
        return result

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        # "The integer values returned by two invocations of "PRAGMA data_version" from the same
        # connection will be different if changes were committed to the database by any other
        # connection in the interim": https://www.sqlite.org/pragma.html#pragma_data_version
        was_open = self.worker.in_transaction
        reply = self.run_statement("PRAGMA data_version", (), self._execute_aside)
        if not was_open:
            self.transaction.end_read()  # otherwise, the next call would read the same snapshot
        return int(reply.rows[0][0])

    def _execute_aside(
        self, connection: sqlite3.Connection, sql: str, parameters: Parameters
    ) -> Reply:
        with self.authorizer.aside():
            return execute_at_once(connection, sql, parameters)

    @property
    def is_as_opened(self) -> bool:
        """True if SQLite's connection may be used as if it had just been opened.

        Temp tables and attached files stay on it, including those that listeners have created.
        """
        authorizer = self.authorizer
        return not (
            self.worker.lent
            or self.settings_changed
            or authorizer.temp_schema
            or authorizer.attached
        )

    def check_tried_write(
        self,
        connection: sqlite3.Connection,
        facts: StatementFacts,
        parameters: Parameters,
        execute: Execute,
        reply: Reply,
    ) -> Reply:
        """Return or refuse the reply of a closure's read that tried to write; see Performing.

        This runs in the closure's thread.
        """
        statement = Statement(facts, parameters, execute, atomic=False)
        return self._performing.check_tried_write(connection, Plan(Access.READER), statement, reply)

    def explain_tried_write(
        self,
        connection: sqlite3.Connection,
        facts: StatementFacts,
        parameters: Parameters,
        execute: Execute,
        error: Exception,
    ) -> None:
        """Raise an error if a closure's read on a reader failed because it tried to write."""
        statement = Statement(facts, parameters, execute, atomic=False)
        self._performing.explain_tried_write(connection, statement, error)

    def make_ready(self) -> None:
        """Finish the set-up, before the application gets the connection for the first time."""
        self.ready = True
        authorizer, settings = self.authorizer, self.settings
        if self.rules.role is Role.READER:
            if settings.attached_for_writing:
                connection = self.worker.connection
                self.run_in_thread(lambda: settings.attach_again_read_only(connection))
            # This also applies to whatever the application does on the raw connection.
            authorizer.access = Access.READER
