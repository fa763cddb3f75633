"""The raw connection, ``driver_connection``, while it is lent to the application.

Statements executed there bypass the executor: SQLite itself waits for locks, and ``sqlite3``
begins transactions before DML.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from typing import final

from ..reporting.events import ForeignKeysRefused, log
from ..settings import Role, is_on
from ..sqlite.authorizer import Access
from ..sqlite.configuring import file_of
from ..sqlite.inspection import ask
from ..sqlite.isolation import leave_to_driver
from ..transactions.rules import Rules
from ..transactions.transaction import TransactionState
from .executor import Executor


def lend(executor: Executor, level: str | None) -> None:
    """Lend the raw connection to the application, until :func:`take_back`.

    ``level`` is the isolation level with which ``sqlite3`` begins transactions there. This does not
    wait: if the connection is in use, its thread prepares it after the current job, and so before
    anything that the application sends there.
    """
    rules, worker = executor.rules, executor.worker
    authorizer, settings, transaction = executor.authorizer, executor.settings, executor.transaction

    def prepare(connection: sqlite3.Connection) -> None:
        settings.lend(connection, rules, executor.role)
        if rules.role is not Role.READER and authorizer.refuses is None:
            with authorizer.aside():
                foreign_keys = _ForeignKeys(connection, transaction, rules)
            authorizer.refuses = foreign_keys
        transaction.begun_here = connection.in_transaction
        if transaction.savepoints:
            transaction.begin_for_raw(connection)
        if transaction.permit is None:
            return  # a listener sets the connection up: its transaction would not be ended
        if executor.role is Role.READER:
            authorizer.access = Access.READER
        # Make sqlite3 begin a transaction before DML, as on stock. Otherwise, each row would be
        # committed at once, and rollback() would undo nothing.
        leave_to_driver(connection, level)

    if worker.may_run_inline:
        executor.run_briefly(lambda: prepare(worker.connection))
        worker.lent = True
    else:
        worker.lent = True  # all further work runs in its thread, after this
        worker.run_after_job(prepare)


def take_back(executor: Executor) -> None:
    """Reclaim the raw connection, and note what the application has changed, in one hop."""
    rules, connection = executor.rules, executor.worker.connection
    authorizer, settings = executor.authorizer, executor.settings
    executor.policy.functions_may_have_changed()
    authorizer.refuses = None
    if rules.role is not Role.READER:
        authorizer.access = Access.ALL

    def function() -> None:
        settings.take_back(connection)
        with authorizer.aside():
            path = file_of(connection)
        if rules.file is not None and os.path.realpath(path or "") != rules.file:
            executor.worker.spent = True
        else:
            executor.transaction.look_at_log(connection)

    executor.run_in_thread(function)
    executor.worker.lent = False


@final
class _ForeignKeys:
    """``PRAGMA foreign_keys`` on the raw connection of a writer, as the authorizer sees it.

    Within a transaction, SQLite ignores it without an error, and a table that is rebuilt then loses
    its child rows. With the stock driver, none is open unless rows were written, so a PRAGMA that
    matters is refused: SQLite reports "not authorized", and the log explains why. A transaction
    begun on the raw connection is treated as on stock. Created in the connection's thread.
    """

    def __init__(
        self, connection: sqlite3.Connection, transaction: TransactionState, rules: Rules
    ) -> None:
        # SQLite's connection refers to the authorizer, which refers to this object. The garbage
        # collector sees no cycle, so a connection never closed would stay open, with its locks.
        self._transaction = weakref.ref(transaction)
        self._rules = rules
        self._on = bool(ask(connection, "foreign_keys"))

    def __call__(self, name: str, value: str) -> bool:
        """Return whether to refuse the PRAGMA. Runs in the thread, within SQLite's compiler."""
        if name.lower() != "foreign_keys" or (transaction := self._transaction()) is None:
            return False
        if (connection := transaction.worker.open_connection) is None:
            return False
        wanted = is_on(value.lower())
        if not connection.in_transaction:
            self._on, transaction.begun_here = wanted, False
            return False
        if wanted is self._on or transaction.begun_raw:
            return False
        if transaction.changes.rows(connection):
            return False  # with the stock driver, a transaction would be open, too
        log(
            ForeignKeysRefused(database=self._rules.label, value=value),
            "PRAGMA foreign_keys = %s on the raw connection of %s is refused: SQLite ignores it "
            "within a transaction, and this one was begun by an earlier statement of SQLAlchemy; "
            "send the PRAGMA with connection.execute(), or after commit() or rollback()",
            value,
            self._rules.label,
        )
        return True
