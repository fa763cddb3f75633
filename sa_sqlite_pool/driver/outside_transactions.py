"""Statements that SQLite ignores or refuses in a transaction, on a connection that is in one.

The stock driver begins a transaction at the first row that is written, so these statements take
effect after any number of reads. A writer of this package is in one from its first read on.
"""

from __future__ import annotations

import sqlite3

from ..execution.replies import NO_REPLY, Execute, Parameters, Reply
from ..settings import Role, is_on
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask
from ..sqlite.statements import Kind, is_plain_pragma, parse_pragma
from ..sqlite.tokens import first_word, is_followed_by_another, words
from ..transactions.attached import begin_and_lock_main
from ..transactions.locks import is_lock
from ..transactions.rules import Rules
from ..transactions.transaction import TransactionState


def is_without_effect_within(kind: Kind, sql: str) -> bool:
    """Return whether SQLite ignores or refuses the statement within a transaction."""
    if kind is Kind.MAINTENANCE:
        return True
    if kind is not Kind.SETTING:
        return False
    pragma = parse_pragma(sql)
    if pragma is None:
        return first_word(sql) == "DETACH"
    return pragma.value is not None and pragma.name in _NOT_WITHIN


# "This pragma is a no-op within a transaction" (foreign_keys, https://www.sqlite.org/pragma.html);
# "Safety level may not be changed inside a transaction", "temporary storage cannot be changed from
# within a transaction" (SQLite's pragma.c), "cannot change into wal mode from within a transaction"
# (its vdbe.c).
_NOT_WITHIN = frozenset({"foreign_keys", "journal_mode", "synchronous", "temp_store"})


def between_transactions(
    kind: Kind,
    transaction: TransactionState,
    authorizer: Authorizer,
    execute: Execute,
    within: Execute,
) -> Execute:
    """Return a function that runs a statement if a writer's open transaction may only have read.

    That transaction is ended before the statement, and another is begun after it, in the same hop
    and write turn. In between, only a program that does not use the package can write, as with the
    stock driver. After a statement that changes the file (VACUUM), even a failed one, none is
    begun, as after a commit. If the transaction has written, ``within`` executes the statement.
    """

    def between(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        if connection.in_transaction:  # if not, it is the second attempt
            if not transaction.has_only_read(connection):
                return within(connection, sql, parameters)
            transaction.end_for_a_moment(connection)
        try:
            return execute(connection, sql, parameters)
        finally:
            if kind is Kind.SETTING:
                _begin_again(connection, transaction, authorizer)

    return between


def _begin_again(
    connection: sqlite3.Connection, transaction: TransactionState, authorizer: Authorizer
) -> None:
    try:
        if transaction.attached.any:
            begin_and_lock_main(connection, authorizer)
        else:
            connection.execute("BEGIN IMMEDIATE")
    except dbapi.Error as error:
        if not is_lock(error):  # if it is, the next statement begins it, and waits for the lock
            raise
    else:
        transaction.note_begin(connection)


def setting_within(
    sql: str, rules: Rules, role: Role, transaction: TransactionState, execute: Execute
) -> Execute:
    """Return a function that changes a setting if the open transaction has written.

    SQLite ignores ``foreign_keys`` without an error. A table that is rebuilt then loses its child
    rows, so switching them off is refused. Switching them on, as a migration does at its end, or a
    program after creating its tables, takes effect at the end of the transaction, and so does
    ``synchronous``, since the stock driver begins no transaction for CREATE. If SQLite itself ends
    the transaction, the connection is not checked out again.

    If the application itself has begun the transaction on a swap-in connection, SQLite ignores the
    PRAGMA as on stock: keys that are off stay off, for a rebuild in the next transaction.
    """
    pragma = parse_pragma(sql)
    if pragma is None or pragma.value is None or pragma.name not in _MAY_WAIT:
        return execute
    if is_followed_by_another(sql):  # the driver refuses it
        return execute
    name, wanted = pragma.name, is_on(pragma.value)
    if not is_plain_pragma(sql) and (wanted or name != "foreign_keys"):
        return execute  # SQLite or the driver refuses it now

    def at_end(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        transaction.at_end.pop(name, None)  # this statement supersedes it
        if name == "foreign_keys":
            as_on_stock = transaction.begun_by_text and role is Role.AUTO
            if bool(ask(connection, name)) is wanted or (wanted and as_on_stock):
                return execute(connection, sql, parameters)
            if not wanted:
                raise _stay(
                    rules,
                    "on",
                    "this one was begun with BEGIN, has written (CREATE and DROP count) or has a "
                    "savepoint; commit or roll back first, or send the PRAGMA before any of these",
                )
        transaction.at_end[name] = sql
        return NO_REPLY

    return at_end


_MAY_WAIT = frozenset({"foreign_keys", "synchronous"})


def switching_in_function(sql: str, rules: Rules, execute: Execute) -> Execute:
    """Return a function that sets foreign keys in a closure, which runs in a transaction."""
    pragma = parse_pragma(sql)
    if pragma is None or pragma.name != "foreign_keys" or pragma.value is None:
        return execute
    wanted = is_on(pragma.value)

    def switch(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        if bool(ask(connection, "foreign_keys")) is not wanted:
            raise _stay(
                rules,
                "off" if wanted else "on",
                "run_write() and run_read() begin one for each function; send the PRAGMA on a "
                "connection of the writer engine, and then the statements that need it",
            )
        return execute(connection, sql, parameters)

    return switch


def _stay(rules: Rules, how: str, why: str) -> sqlite3.OperationalError:
    return sqlite3.OperationalError(
        f"foreign keys of {rules.label} stay {how}: SQLite ignores PRAGMA foreign_keys within a "
        f"transaction, and {why}"
    )


def begin_by_text(transaction: TransactionState, execute: Execute) -> Execute:
    """Return a function that executes the application's BEGIN where the package sends none."""

    def begin(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        reply = execute(connection, sql, parameters)
        transaction.begun_by_text = True
        return reply

    return begin


def begin_after_reads(transaction: TransactionState, execute: Execute) -> Execute:
    """Return a function for the application's BEGIN if the open transaction has only read.

    With the stock driver, none is open then. Here, SQLite's lock, which IMMEDIATE requests, is
    already held, and earlier reads are in the same transaction. A second BEGIN is an error.
    """

    def begin(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        if connection.in_transaction:
            if transaction.begun_by_text or not transaction.has_only_read(connection):
                return execute(connection, sql, parameters)
            if "EXCLUSIVE" in words(sql):
                transaction.end_for_a_moment(connection)
        reply = NO_REPLY
        if not connection.in_transaction:
            reply = execute(connection, sql, parameters)
            transaction.note_begin(connection)
        transaction.begun_by_text = True
        return reply

    return begin
