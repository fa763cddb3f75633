"""One statement, from its first attempt to its last: what it waits for, and where it runs."""

from __future__ import annotations

import sqlite3

from ..errors import StatementTimeout
from ..execution.connection_thread import ConnectionThread
from ..execution.jobs import OutOfTime
from ..execution.replies import Reply
from ..settings import Role
from ..sqlite.driver_errors import dbapi
from ..sqlite.statements import Kind, changes_settings
from ..sqlite.tokens import first_word
from ..system.clock import time
from ..transactions.locks import Patience, may_pass
from ..transactions.placement import NotInline, PlacementPolicy
from ..transactions.rules import Rules, decide
from ..transactions.transaction import TransactionState
from ..turn.permit import shorten
from .explanations import explain
from .performing import Misjudged, Performing
from .preparation import Preparation
from .statement import Statement


class TriesStatements:
    """Base class of Executor: tries statements on one connection until they are done.

    ``role`` is the connection's current role, under its ``rules``. ``settings_changed`` is True if
    a PRAGMA or ATTACH has changed settings during this checkout.
    """

    __slots__ = (
        "_performing",
        "_preparation",
        "_swaps_in",
        "authorizer",
        "autocommit",
        "counts",
        "facts",
        "policy",
        "rules",
        "settings",
        "settings_changed",
        "transaction",
        "worker",
    )

    def __init__(self, worker: ConnectionThread, policy: PlacementPolicy, rules: Rules) -> None:
        self.worker = worker
        self.policy = policy
        self.authorizer, self.settings = policy.authorizer, policy.settings
        self.counts, self.facts = policy.counts, policy.facts
        self.rules = rules
        self.autocommit = False
        self.settings_changed = False
        self.transaction = TransactionState(worker, policy, rules)
        self._swaps_in = rules.role is Role.AUTO
        self._preparation = Preparation(policy, rules, self.transaction)
        self._performing = Performing(policy, rules, self.transaction)

    @property
    def role(self) -> Role:
        """The connection's current role."""
        return self._performing.role

    @role.setter
    def role(self, role: Role) -> None:
        self._performing.role = role

    def _attempt_until_done(self, statement: Statement) -> Reply:
        statement.began = time.monotonic()
        if self.worker.idle_connection is None:
            self.transaction.see_what_is_open()
        kind, authorizer = statement.kind, self.authorizer
        # Whether the text alone shows everything that must be known about the statement.
        plain = kind is Kind.READ or (
            kind is Kind.WRITE
            and self._performing.role is not Role.READER
            and not statement.facts.is_ddl
        )
        if not plain or authorizer.temp_schema or authorizer.attached:
            self._preparation.prepare(statement, self.role, autocommit=self.autocommit)
        while True:
            try:
                return self._attempt(statement)
            except NotInline:
                statement.tries_again = statement.inline = False
            except Misjudged:
                statement.tries_again = False
                self._preparation.reconsider(statement)
            except dbapi.OperationalError as error:
                if not statement.tries_again:
                    raise
                self._wait_before_next_try(statement, error)
            except OutOfTime:
                raise self._took_too_long(statement.sql, statement.timeout) from None

    def _attempt(self, statement: Statement) -> Reply:
        was_open, kind = self.worker.in_transaction, statement.kind
        # An error may occur before the statement runs: earlier refusals do not explain it.
        self.authorizer.denied = None
        statement.turn_unused = False  # only the last attempt counts
        try:
            return self._run(statement, was_open)
        except dbapi.failures(OutOfTime) as error:
            self.transaction.assert_not_too_old()
            if isinstance(error, dbapi.Error):
                self.worker.note_error(error)
                explain(error, statement, self.role, self.authorizer, self.rules, self.transaction)
                # A reader's transaction is never promoted, so a wait within it is possible.
                promoted = self.worker.in_transaction and self.role is not Role.READER
                statement.tries_again = may_pass(error, in_transaction=promoted)
            if kind is not Kind.END:
                self.transaction.note_loss(was_open, error)
            if not statement.tries_again:
                statement.facts.runs.failed += 1
            raise
        except (NotInline, Misjudged):
            statement.tries_again = True
            raise
        finally:
            if kind.writes or kind in _CHANGES_TRANSACTION:
                if not self.transaction.wrote:
                    self.transaction.changes.first_sql = statement.sql
                self.transaction.wrote = True
            if kind.may_change_settings:
                self._note_settings(statement.sql)
            if self.worker.lent:
                self.transaction.see_who_began(was_open)
            if not statement.tries_again:
                self.transaction.after_work()
                if statement.turn_unused:
                    self.transaction.writing.end()

    def _note_settings(self, sql: str) -> None:
        if changes_settings(sql):
            self.policy.settings_may_have_changed()
            if self.transaction.permit is not None:
                self.settings_changed = True

    def _run(self, statement: Statement, was_open: bool) -> Reply:
        """Wait for whatever the statement needs, and execute it."""
        transaction, sql, kind = self.transaction, statement.sql, statement.kind
        # Work done before the application gets the connection (a ping, pool events, the dialect)
        # leaves no transaction open.
        alone = self.autocommit or transaction.permit is None
        role, has_turn = self._performing.role, transaction.writing.claim is not None
        refused, needs_turn, plan = decide(
            kind, role, self._swaps_in, has_turn, alone, was_open, statement.atomic
        )
        if refused:
            how = " (attach it with on_connect= or in a connect listener)"
            raise self.rules.forbidden(shorten(sql) + (how if kind is Kind.ATTACH else ""))
        self._wait_for_turn_and_gap(statement, needs_turn)

        worker, policy = self.worker, self.policy
        facts, perform = statement.facts, self._performing.perform
        if statement.inline and worker.idle_connection is not None:
            # Otherwise, the keeper has checked: see PlacementPolicy.end_is_inline().
            if policy.always and _may_commit(kind, sql, alone, was_open):
                worker.assert_may_commit()
            return policy.run_inline(worker, facts, kind, perform, plan, statement)

        may_commit = _may_commit(kind, sql, alone, was_open)

        def in_thread(connection: sqlite3.Connection) -> Reply:
            try:
                if may_commit:
                    worker.assert_may_commit()
                return policy.run_in_thread(connection, facts, kind, perform, plan, statement)
            finally:
                worker.note_open(connection)

        text = None if facts.steps_are_long else sql
        return transaction.run(in_thread, text=text, timeout=statement.timeout)

    def _wait_for_turn_and_gap(self, statement: Statement, needs_turn: bool) -> None:
        """Wait for the write turn, if needed, for those of attached files, and for a gap's end."""
        transaction, rules, sql = self.transaction, self.rules, statement.sql
        writing, permit = transaction.writing, transaction.permit
        if needs_turn and self.worker.lent and transaction.begun_raw:
            # A transaction begun on the raw connection may hold SQLite's lock without the turn.
            # Waiting for the turn would then mean waiting for a task that waits for the lock.
            needs_turn = False
        statement.took_turn |= needs_turn
        if needs_turn and not writing.begin_nowait(permit):
            transaction.note(sql)  # for reports of the wait
            transaction.wait_for(writing.begin(self._patience(statement), permit))
        transaction.note(sql)
        if statement.databases and transaction.attached.any:
            patience = self._patience(statement)
            others = transaction.attached.take_turns(statement.databases, rules, patience)
            transaction.wait_for(others)
        while writing.claim is None and not transaction.begin_read():
            transaction.wait_for(rules.snapshots.until_no_gap())

    def _took_too_long(self, sql: str, seconds: float | None) -> StatementTimeout:
        return self.rules.took_too_long(sql, seconds, lost=self.transaction.lost)

    def _patience(self, statement: Statement) -> Patience:
        if statement.patience is None:
            writes = statement.kind.writes
            statement.patience = Patience(
                self.rules,
                self.transaction.permit,
                writing=writes or self.role is Role.WRITER,
                commits=writes and self.autocommit,
                began=statement.began,
                busy_seconds=self.settings.busy_seconds,
            )
        return statement.patience

    def _wait_before_next_try(self, statement: Statement, error: Exception) -> None:
        statement.tries_again = False
        began = time.monotonic()
        try:
            self.transaction.wait_for(self._patience(statement).wait(error))
        except BaseException:
            self.transaction.after_work()
            raise
        self.transaction.writing.others_had_lock(time.monotonic() - began)


_COMMITS = frozenset({"COMMIT", "END", "RELEASE"})  # RELEASE: of the outermost savepoint
_CHANGES_TRANSACTION = frozenset({Kind.SAVEPOINT, Kind.TEMP_DML, Kind.TEMP_DDL, Kind.UNKNOWN})


def _may_commit(kind: Kind, sql: str, alone: bool, was_open: bool) -> bool:
    """Return whether a statement is a writing transaction of its own, or COMMIT sent as text."""
    if kind is Kind.END:
        return first_word(sql) in _COMMITS
    return kind.writes and alone and not was_open
