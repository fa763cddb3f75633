"""The execution of a statement on its connection, in the thread in which it runs."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import final

from ..errors import ForbiddenWriteError
from ..execution.replies import Reply
from ..settings import Role
from ..sqlite.authorizer import Access
from ..sqlite.driver_errors import dbapi, is_read_only
from ..sqlite.examination import examine
from ..sqlite.inspection import ask
from ..sqlite.shared_hooks import ask_again
from ..sqlite.statements import Kind
from ..sqlite.tokens import first_word
from ..transactions.attached import begin_and_lock_main
from ..transactions.locks import may_pass
from ..transactions.placement import PlacementPolicy
from ..transactions.rules import Plan, Rules
from ..transactions.transaction import TransactionState
from .statement import Statement


class Misjudged(Exception):  # noqa: N818 - no error: the caller tries again
    """SQLite reports that an apparent read writes. Nothing was written."""


@final
class Performing:
    """Executes statements according to plan. ``role`` is the connection's current role."""

    __slots__ = (
        "_authorizer",
        "_counts",
        "_rules",
        "_sent_savepoints",
        "_settings",
        "_switches",
        "_transaction",
        "role",
    )

    def __init__(
        self, policy: PlacementPolicy, rules: Rules, transaction: TransactionState
    ) -> None:
        self._authorizer = policy.authorizer
        self._counts = policy.counts
        self._settings = policy.settings
        self._rules = rules
        self._transaction = transaction
        self._sent_savepoints: list[str] = []  # with the last BEGIN
        self._switches = rules.role is not Role.WRITER and not rules.opened_read_only
        self.role = rules.role

    def perform(self, connection: sqlite3.Connection, plan: Plan, statement: Statement) -> Reply:
        """Execute the statement, and whatever the plan puts before and after it."""
        authorizer, transaction = self._authorizer, self._transaction
        authorizer.denied = authorizer.attempted = None
        resting, authorizer.access = authorizer.access, plan.access
        try:
            if self._switches:
                self._switch_query_only(connection, statement.kind)
            if transaction.savepoints or (plan.begin is not None and plan.begin != "BEGIN"):
                self._begin(connection, plan, statement)
            elif plan.begin is not None:
                self._sent_savepoints = transaction.savepoints
                connection.execute("BEGIN")
            if plan.commit or authorizer.compiled_writes or statement.facts.finding is not None:
                reply = self._execute(connection, plan, statement)
            else:
                reply = statement.execute(connection, statement.sql, statement.parameters)
            if authorizer.attempted is not None:
                reply = self.check_tried_write(connection, plan, statement, reply)
        except Exception as error:
            if isinstance(error, dbapi.OperationalError):
                self._explain_failure(connection, plan, statement, error)
            took_turn = statement.took_turn and self.role is Role.AUTO
            if took_turn and not isinstance(error, dbapi.IntegrityError):  # which means that it ran
                self._give_up_turn(connection, plan, statement)
            raise
        finally:
            authorizer.access = resting
            if authorizer.busy_timeout and not transaction.worker.lent:
                self._settings.switch_off_waiting(connection)
        kind = statement.kind
        if (kind.writes or kind is Kind.END) and not connection.in_transaction:
            self._note_end(connection, statement)
        return reply

    def _note_end(self, connection: sqlite3.Connection, statement: Statement) -> None:
        """Note that the statement has ended a transaction: its own, or the open one by COMMIT."""
        for stream in list(self._transaction.streams):
            if stream.open == statement.execute:  # its own, which holds SQLite's lock until then
                stream.read_on()
        ends = statement.kind is Kind.END
        self._counts.ended_by_text(rolled_back=ends and first_word(statement.sql) == "ROLLBACK")
        self._transaction.committed(connection)

    def _execute(self, connection: sqlite3.Connection, plan: Plan, statement: Statement) -> Reply:
        """Execute the statement according to the plan, or to SQLite's finding."""
        authorizer = self._authorizer
        if plan.commit:
            return _execute_and_commit(connection, statement)
        if authorizer.compiled_writes and plan.access is Access.NO_WRITES and not authorizer.inline:
            # A function may run what was compiled while the turn was held: SQLite must ask again.
            ask_again(connection, authorizer)
            authorizer.compiled_writes = False
        if plan.access is Access.ALL and statement.facts.finding is not None:
            return self._execute_noted(connection, statement)
        return statement.execute(connection, statement.sql, statement.parameters)

    def _switch_query_only(self, connection: sqlite3.Connection, kind: Kind) -> None:
        """Make SQLite refuse writes by a reader whose file is not opened read-only."""
        read_only = self.role is Role.READER
        if read_only and kind.is_temp:  # which query_only refuses, too
            self._authorizer.access, read_only = Access.READER_TEMP, False
        if read_only is not self._settings.read_only:
            self._settings.set_read_only(connection, read_only)

    def _begin(self, connection: sqlite3.Connection, plan: Plan, statement: Statement) -> None:
        begin = plan.begin or _BEGIN_WITH_SAVEPOINTS.get(statement.kind)
        if begin is None:
            return
        if begin == "BEGIN":
            connection.execute(begin)
        elif not self._transaction.attached.any:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except dbapi.OperationalError as error:
                self._begin_otherwise(connection, error)
        elif self.role is Role.WRITER and (not statement.databases or 0 in statement.databases):
            begin_and_lock_main(connection, self._authorizer)
        else:  # the statement, which writes, acquires the locks that it needs
            connection.execute("BEGIN")
        if self.role is Role.WRITER:
            self._transaction.changes.begin(connection)
        self._sent_savepoints = self._transaction.savepoints
        if self._sent_savepoints:
            self._transaction.begin_savepoints(connection)

    def _begin_otherwise(self, connection: sqlite3.Connection, error: Exception) -> None:
        # The application has set PRAGMA query_only and only reads, since SQLite refuses writes.
        if not is_read_only(error) or not ask(connection, "query_only"):
            raise error
        connection.execute("BEGIN")

    def _explain_failure(
        self, connection: sqlite3.Connection, plan: Plan, statement: Statement, error: Exception
    ) -> None:
        if plan.access is Access.READER and self._authorizer.attempted is not None:
            self.explain_tried_write(connection, statement, error)
        if plan.begin == "BEGIN IMMEDIATE" and may_pass(error, in_transaction=False):
            self._not_begun(connection)

    def _give_up_turn(
        self, connection: sqlite3.Connection, plan: Plan, statement: Statement
    ) -> None:
        """Release the turn that a swap-in connection has for a statement that does not compile.

        The stock driver compiles before it begins, and holds no lock then, so the BEGIN that was
        sent for the statement is undone: nothing was read in that transaction. A statement that ran
        and failed (a constraint) keeps the lock, as with the stock driver.
        """
        if not connection.in_transaction:
            return
        sql, parameters = statement.sql, statement.parameters
        if statement.atomic:
            parameters = next(iter(parameters), ())
        if examine(connection, self._authorizer, sql, parameters) is None:
            if plan.begin is not None:
                self._undo_begin(connection)
            statement.turn_unused = True  # SQLite's lock is free

    def _undo_begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")
        self._transaction.savepoints = self._sent_savepoints

    def _not_begun(self, connection: sqlite3.Connection) -> None:
        """Undo the BEGIN of a transaction that a lock prevented."""
        if self._transaction.attached.any and connection.in_transaction:
            self._undo_begin(connection)  # it has acquired no lock
        self._rules.meet_busy()

    def _execute_noted(self, connection: sqlite3.Connection, statement: Statement) -> Reply:
        """Run an apparent read under the turn; it counts as a read again if it wrote nothing."""
        authorizer, before = self._authorizer, connection.total_changes
        authorizer.access = Access.NOTED
        reply = statement.execute(connection, statement.sql, statement.parameters)
        if authorizer.attempted is None and connection.total_changes == before:
            statement.facts.forget_finding()
        return reply

    def explain_tried_write(
        self, connection: sqlite3.Connection, statement: Statement, error: Exception
    ) -> None:
        """Raise an error if a function failed because it tried to write, which a reader refuses.

        Otherwise, a virtual table was connected, and the error has another cause: see
        :meth:`check_tried_write`.
        """
        authorizer = self._authorizer
        explained = isinstance(error, ForbiddenWriteError) or is_read_only(error)
        if statement.kind is not Kind.READ or authorizer.denied is not None or explained:
            return
        authorizer.attempted = None
        ask_again(connection, authorizer)
        with contextlib.suppress(*dbapi.Error):
            statement.execute(connection, statement.sql, statement.parameters)
        if authorizer.attempted is not None:
            ask_again(connection, authorizer)  # so that the next run asks, too
            raise self._rules.forbidden(authorizer.attempted) from error

    def check_tried_write(
        self, connection: sqlite3.Connection, plan: Plan, statement: Statement, reply: Reply
    ) -> Reply:
        """Return or refuse the reply of a statement that succeeded although it tried to write.

        A function may swallow the errors of its statements. Or a virtual table was connected, which
        may compile writes that it never runs, but only once: the next run writes nothing.
        """
        authorizer, kind = self._authorizer, statement.kind
        if plan.access is Access.NO_WRITES:
            if kind.is_temp:  # it has written already, and must not write twice
                raise self._rules.without_turn(authorizer.attempted)
            raise Misjudged
        if plan.access is not Access.READER:
            return reply
        if kind.is_temp:
            refused = authorizer.denied
        elif statement.facts.kind_of_text in _MAY_READ:
            if authorizer.denied is None:
                authorizer.attempted = None
                ask_again(connection, authorizer)  # including about what functions have compiled
                reply = statement.execute(connection, statement.sql, statement.parameters)
            refused = authorizer.attempted
        else:  # SQLite has the last word: CREATE TABLE IF NOT EXISTS may have nothing to do
            refused = None
        if refused is not None:
            ask_again(connection, authorizer)  # so that the next run asks, too
            raise self._rules.forbidden(refused)
        return reply


# Kinds of texts that can write only through a function.
_MAY_READ = frozenset({Kind.READ, Kind.UNKNOWN})

# While savepoints wait to be sent, the application considers a transaction open. Everything that
# they would undo has to be in it, and SQLite refuses a second BEGIN.
_BEGIN_WITH_SAVEPOINTS = {
    Kind.TEMP_DDL: "BEGIN",
    Kind.UPKEEP: "BEGIN IMMEDIATE",
    Kind.PRAGMA_WRITE: "BEGIN IMMEDIATE",
    Kind.BEGIN: "BEGIN",
    Kind.BEGIN_WRITE: "BEGIN IMMEDIATE",
}


def _execute_and_commit(connection: sqlite3.Connection, statement: Statement) -> Reply:
    try:
        reply = statement.execute(connection, statement.sql, statement.parameters)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return reply
