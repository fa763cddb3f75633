"""Statements that SQLite ignores or refuses within a transaction, on a connection that is in one.

The stock driver begins a transaction with the first row that is written, so that these have their
effect after any number of reads. A writer of this package is in a transaction since its first read.
"""

from __future__ import annotations

import contextlib
import sqlite3

from ..execution.worker import Worker
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask
from ..sqlite.statements import Kind, first_word, is_on, parse_pragma
from ..transactions.cursors import Execute, Parameters, Reply
from ..transactions.locks import is_lock
from ..transactions.rules import Rules


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


def between_transactions(kind: Kind, execute: Execute) -> Execute:
    """Return how to execute it where the open transaction has only read, and has no savepoint.

    That transaction is ended before the statement, and another begun after it, in the same hop and
    in the same write turn. Only a program that does not know the package may write in between, as
    beside the stock driver. After what changes the file (VACUUM) none is begun: the connection is
    as after a commit.
    """

    def between(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        if connection.in_transaction:  # or it is the second try
            connection.execute("COMMIT")
        try:
            reply = execute(connection, sql, parameters)
        except BaseException:
            with contextlib.suppress(*dbapi.Error):
                connection.execute("BEGIN IMMEDIATE")
            raise
        if kind is Kind.SETTING:
            _begin_again(connection)
        return reply

    return between


def _begin_again(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except dbapi.Error as error:
        if not is_lock(error):  # or the next statement begins it, and waits for the lock
            raise


def switching_foreign_keys(sql: str, rules: Rules, worker: Worker, execute: Execute) -> Execute:
    """Return how to switch foreign keys where the open transaction has written.

    SQLite ignores that without a word. A table that is rebuilt then loses its child rows, so that
    to switch them off is refused. What switches them on again is at the end of a migration: the
    connection is not lent again, and the next one has them as the engine does.
    """
    pragma = parse_pragma(sql)
    if pragma is None or pragma.name != "foreign_keys" or pragma.value is None:
        return execute
    wanted = is_on(pragma.value)

    def switch(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        if bool(ask(connection, "foreign_keys")) is wanted:
            return execute(connection, sql, parameters)
        if not wanted:
            raise sqlite3.OperationalError(
                f"foreign keys of {rules.label} stay on: SQLite ignores PRAGMA foreign_keys within "
                "a transaction, and this one has written (CREATE and DROP count) or has a "
                "savepoint; commit or roll back first, or send the PRAGMA before that"
            )
        worker.spent = worker.spent or rules.file is not None
        return execute(connection, sql, parameters)

    return switch


def explain_leaving_wal(error: Exception, sql: str, rules: Rules) -> Exception | None:
    """Return what to raise where a journal mode cannot be set, at once, as SQLite does.

    To leave WAL mode SQLite takes the exclusive lock (``sqlite3PagerCloseWal()`` in its pager.c),
    which it cannot have while another connection is open. Those of a pool stay open, so no waiting
    helps.
    """
    pragma = parse_pragma(sql)
    leaves = pragma is not None and pragma.name == "journal_mode" and pragma.value != "wal"
    if not leaves or not is_lock(error):
        return None
    explained = sqlite3.OperationalError(
        f"{error}: the journal mode of {rules.label} changes only while no other connection is "
        "open, and the pools of this process keep theirs; close its engines, and open it with "
        'pragmas={"journal_mode": …}'
    )
    vars(explained).update(vars(error))
    return explained
