"""What has to be found out about a statement before its needs are decided."""

from __future__ import annotations

import sqlite3
from typing import final

from ..execution.replies import NO_REPLY, Execute, Parameters, Reply, execute_at_once
from ..settings import Role
from ..sqlite.driver_errors import dbapi
from ..sqlite.examination import Finding, compile_error, examine, nulls_for
from ..sqlite.statements import (
    Kind,
    ends_transaction,
    is_plain_pragma,
    parse_pragma,
    savepoint_name,
)
from ..sqlite.tokens import first_word
from ..transactions.locks import is_lock
from ..transactions.own_settings import optimize_only_says, saying_only
from ..transactions.placement import PlacementPolicy
from ..transactions.rules import Rules
from ..transactions.transaction import TransactionState
from .outside_transactions import (
    begin_after_reads,
    begin_by_text,
    between_transactions,
    is_without_effect_within,
    setting_within,
)
from .rebuilds import keeping_children
from .statement import Statement


@final
class Preparation:
    """Finds out what a statement's text does not show, and changes how some are executed."""

    __slots__ = ("_authorizer", "_policy", "_rules", "_temp_schema", "_transaction")

    def __init__(
        self, policy: PlacementPolicy, rules: Rules, transaction: TransactionState
    ) -> None:
        self._policy = policy
        self._authorizer = policy.authorizer
        self._rules = rules
        self._transaction = transaction
        self._temp_schema = policy.authorizer.temp_schema  # as of the last findings
        policy.facts.forget_findings()  # a kept connection may have lost its functions

    def prepare(self, statement: Statement, role: Role, *, autocommit: bool) -> None:
        """Prepare a statement before its needs are decided. This may take a hop."""
        if statement.facts.is_ddl and role is Role.AUTO and self._is_in_vain(statement):
            return
        if self._must_be_examined(statement, role):
            self._look_up(statement, role)
        kind = statement.kind
        if (dropped := statement.facts.drops) is not None:
            statement.inline = False  # it may search a table first
            statement.execute = keeping_children(
                dropped, self._authorizer, self._rules, statement.execute
            )
        if kind is Kind.READ or kind is Kind.WRITE:
            return
        if kind is Kind.BEGIN or kind is Kind.BEGIN_WRITE:
            if role is Role.WRITER:  # BEGIN IMMEDIATE is sent before a plain BEGIN
                statement.execute = begin_after_reads(self._transaction, statement.execute)
            elif role is Role.AUTO:
                statement.execute = begin_by_text(self._transaction, statement.execute)
        elif kind is Kind.SAVEPOINT or kind is Kind.END:
            transaction = self._transaction
            if role is Role.AUTO and not autocommit and transaction.permit is not None:
                self._prepare_savepoint(statement)
        elif kind is Kind.PRAGMA_WRITE and role is Role.AUTO:
            self._prepare_optimize(statement)
        elif kind.may_change_settings:
            self._prepare_setting(statement, role, autocommit=autocommit)

    def _is_in_vain(self, statement: Statement) -> bool:
        """Return whether DDL has nothing to do, or fails, so that it needs no turn. Takes a hop.

        Applications execute CREATE … IF NOT EXISTS whenever they start or need a table, and catch
        the error of ALTER TABLE … ADD COLUMN. With the stock driver, that waits for no writer.
        """
        if statement.atomic or self._transaction.writing.begun:
            return False
        sql, nulls, authorizer = statement.sql, nulls_for(statement.parameters), self._authorizer

        def look(connection: sqlite3.Connection) -> Execute | None:
            finding = examine(connection, authorizer, sql, nulls)
            if finding is not None:
                return _nothing if finding.kind is Kind.READ else None
            error = compile_error(connection, authorizer, sql, nulls)
            return None if error is None or is_lock(error) else _failing(error)

        execute = self._transaction.run(look)
        if execute is None:
            return False
        statement.kind, statement.execute = Kind.READ, execute
        return True

    def _must_be_examined(self, statement: Statement, role: Role) -> bool:
        """Return whether the writes of a statement matter, but are unknown."""
        if role is Role.READER and self._rules.opened_read_only:
            return False
        self._notice_changes(statement)
        kind = statement.kind
        if kind not in _EXAMINED:
            return False
        if role is Role.READER or self._transaction.attached.any:
            return True
        if role is Role.WRITER or self._transaction.writing.begun:
            return False
        return self._temp_schema > 0 or kind is Kind.UNKNOWN

    def _notice_changes(self, statement: Statement) -> None:
        """Discard the findings if a name may now refer to a different table."""
        transaction, authorizer = self._transaction, self._authorizer
        attached = transaction.attached.out_of_date
        if not attached and self._temp_schema == authorizer.temp_schema:
            return
        self._policy.facts.forget_findings()
        self._temp_schema = authorizer.temp_schema
        statement.kind = statement.facts.kind_of_text
        if attached:
            transaction.run(transaction.attached.learn)

    def _look_up(self, statement: Statement, role: Role) -> None:
        """Ask SQLite what the statement writes; if it does not compile, its text decides."""
        finding = statement.facts.finding or self._examine(statement)
        if finding is None:
            statement.databases = self._transaction.attached.numbers
        elif role is not Role.READER or finding.kind.is_temp:
            statement.kind, statement.databases = finding.kind, finding.databases

    def _examine(self, statement: Statement) -> Finding | None:
        sql, parameters, authorizer = statement.sql, statement.parameters, self._authorizer
        if statement.atomic:
            parameters = next(iter(parameters), ())
        transaction = self._transaction
        finding = transaction.run(
            lambda connection: examine(connection, authorizer, sql, nulls_for(parameters))
        )
        if finding is not None and finding.kind is not Kind.READ:
            statement.facts.found(finding)
        return finding

    def reconsider(self, statement: Statement) -> None:
        """Find out why SQLite's authorizer refused an apparent read. This may take a hop."""
        statement.inline = False
        if statement.kind.may_change_settings:  # a journal mode, set outside transactions
            statement.kind = Kind.MAINTENANCE
            return
        if not statement.examined:
            statement.examined = True
            finding = self._examine(statement)
            if finding is not None and (finding.kind is not Kind.READ or finding.connects):
                statement.kind, statement.databases = finding.kind, finding.databases
                return
        # Only a write by one of its functions can have been refused.
        finding = Finding(Kind.WRITE, self._transaction.attached.numbers)
        statement.kind, statement.databases = finding.kind, finding.databases
        statement.facts.found(finding)

    def _prepare_setting(self, statement: Statement, role: Role, *, autocommit: bool) -> None:
        kind, transaction = statement.kind, self._transaction
        statement.execute = self._policy.settings.execution(
            *(statement.sql, kind, self._rules, role, statement.execute),
            set_up=transaction.permit is None,
        )
        if transaction.worker.in_transaction and not autocommit:
            self._prepare_outside(statement, role)
        elif kind is Kind.MAINTENANCE and role is not Role.READER:
            self._prepare_checkpoint(statement)

    def _prepare_optimize(self, statement: Statement) -> None:
        """Make PRAGMA optimize wait for the turn only if it has work to do. This may take a hop.

        Listeners execute it on each new connection, as SQLite recommends, and it rarely has any.
        """
        pragma, transaction = parse_pragma(statement.sql), self._transaction
        if pragma is None or pragma.name != "optimize" or transaction.writing.begun:
            return
        if not is_plain_pragma(statement.sql):  # SQLite or the driver refuses it
            return
        question, authorizer, execute = saying_only(pragma), self._authorizer, statement.execute

        def ask(connection: sqlite3.Connection, _sql: str, parameters: Parameters) -> Reply:
            with authorizer.aside():
                return execute(connection, question, parameters)

        def look(connection: sqlite3.Connection) -> Reply:
            with authorizer.aside():
                return execute_at_once(connection, question, ())

        if not optimize_only_says(pragma):
            try:
                found = transaction.run(look)  # all rows, even if they are to be streamed
            except dbapi.Error:  # executing it raises the error again
                return
            if found.rows:
                return
        statement.kind, statement.execute = Kind.PRAGMA, ask

    def _prepare_checkpoint(self, statement: Statement) -> None:
        """Let a passive checkpoint give way while another task has the turn; SQLite's never waits.

        The answer is that of a checkpoint beside another one: the keeper moves the log.
        """
        pragma, transaction = parse_pragma(statement.sql), self._transaction
        if pragma is None or pragma.name != "wal_checkpoint" or pragma.value in _WAITING_MODES:
            return
        writing, execute = transaction.writing, statement.execute
        if writing.claim is not None:
            return
        if writing.begin_nowait(transaction.permit):
            statement.took_turn = True
            return
        writing.end()

        def busy(connection: sqlite3.Connection, _sql: str, parameters: Parameters) -> Reply:
            return execute(connection, _BUSY, parameters)

        statement.kind, statement.execute = Kind.FLAG, busy

    def _prepare_outside(self, statement: Statement, role: Role) -> None:
        """Change a setting outside the open transaction, if that has only read."""
        sql, kind, transaction = statement.sql, statement.kind, self._transaction
        if role is Role.READER or not is_without_effect_within(kind, sql):
            return
        execute = within = setting_within(sql, self._rules, role, transaction, statement.execute)
        if role is Role.WRITER:  # on a swap-in connection, it has written, or was begun by a BEGIN
            execute = between_transactions(
                kind, transaction, self._authorizer, statement.execute, within
            )
        statement.execute = execute

    def _prepare_savepoint(self, statement: Statement) -> None:
        """Defer a savepoint of a swap-in connection until the first write after it.

        Before that, there is nothing to roll back, and reads need no transaction.
        """
        transaction = self._transaction
        if transaction.worker.in_transaction:
            return
        if statement.kind is Kind.SAVEPOINT:
            transaction.savepoints.append(statement.sql)
            statement.execute = _nothing
            if transaction.worker.lent:  # statements there must follow the savepoint
                transaction.run(transaction.begin_for_raw)
        elif transaction.savepoints:
            statement.execute = _nothing
            _end_savepoint(transaction.savepoints, statement.sql)


# The row of SQLite's PRAGMA while another connection runs a checkpoint.
_BUSY = "SELECT 1 AS busy, -1 AS log, -1 AS checkpointed"
_WAITING_MODES = frozenset({"full", "restart", "truncate"})  # any other value means PASSIVE

_EXAMINED = frozenset({Kind.WRITE, Kind.UPKEEP, Kind.UNKNOWN})


def _nothing(_connection: sqlite3.Connection, _sql: str, _parameters: Parameters) -> Reply:
    return NO_REPLY


def _failing(error: Exception) -> Execute:
    def fail(_connection: sqlite3.Connection, _sql: str, _parameters: Parameters) -> Reply:
        raise error

    return fail


def _end_savepoint(savepoints: list[str], sql: str) -> None:
    """Apply RELEASE, ROLLBACK TO or the transaction's end to savepoints that were not sent yet."""
    if ends_transaction(sql):
        savepoints.clear()
        return
    names, name = [savepoint_name(one) for one in savepoints], savepoint_name(sql)
    if name not in names:
        raise sqlite3.OperationalError(f"no such savepoint: {name}")
    last = len(names) - 1 - names[::-1].index(name)  # the innermost of that name
    del savepoints[last if first_word(sql) == "RELEASE" else last + 1 :]
