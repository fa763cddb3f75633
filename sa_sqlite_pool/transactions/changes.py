"""What a transaction has changed, by SQLite's own counts, and schema changes that are rolled back.

The stock driver commits DDL outside a transaction, and a PRAGMA such as user_version, immediately,
since ``sqlite3`` begins a transaction only for DML. Here it is part of the transaction, and rolled
back if the connection is returned without ``commit()``. A warning says so, unless the stock driver
would be in a transaction, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from typing import final

from ..reporting.events import SchemaChangeUndone, log
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask
from ..sqlite.tokens import first_word
from .rules import Rules

_told: weakref.WeakSet[object] = weakref.WeakSet()  # engines that have been warned about


@final
class Changes:
    """The changes since the transaction of a connection began, and since the last one ended.

    ``total_changes`` counts rows, and the authorizer counts DDL. So this includes statements that
    the application's functions have executed, and work on the raw connection. ``as_begun`` holds
    the counts at the beginning, None if there is no transaction, or if they were not recorded.
    ``first_sql`` is the first statement of the open transaction that does more than read.
    """

    __slots__ = ("_authorizer", "_schema_at_end", "as_begun", "first_sql")

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self.as_begun: tuple[int, int] | None = None
        self.first_sql = ""
        self._schema_at_end = authorizer.schema_changes

    def begin(self, connection: sqlite3.Connection) -> None:
        """Record the counts at the beginning of a transaction. Runs in the thread."""
        self.as_begun = connection.total_changes, self._authorizer.schema_changes

    def nothing(self, connection: sqlite3.Connection) -> bool:
        """Return whether nothing has changed since it began; False if that was not recorded."""
        return self.as_begun == (connection.total_changes, self._authorizer.schema_changes)

    def rows(self, connection: sqlite3.Connection) -> bool:
        """Return whether rows have changed since it began; False if that was not recorded."""
        return self.as_begun is not None and self.as_begun[0] != connection.total_changes

    @property
    def schema(self) -> bool:
        """True if DDL was compiled since :meth:`forget_schema_changes`."""
        return self._schema_at_end != self._authorizer.schema_changes

    @property
    def follow_dml(self) -> bool:
        """True if the stock driver would be in a transaction, too: these verbs begin one.

        So does a SAVEPOINT in AUTOCOMMIT, where the package has not begun one.
        """
        word = first_word(self.first_sql)
        return word in _BEGINS or (word == "SAVEPOINT" and self.as_begun is None)

    def forget_schema_changes(self) -> None:
        """Record that the outcome of all DDL so far is known."""
        self._schema_at_end = self._authorizer.schema_changes


_BEGINS = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})


def roll_back_schema(connection: sqlite3.Connection, authorizer: Authorizer, rules: Rules) -> None:
    """Roll back, and log an undone schema change, once for each engine. Runs in the thread."""
    if rules.owner in _told:
        connection.execute("ROLLBACK")
        return
    change, before = authorizer.schema_change or "a schema change", None
    try:
        before = _state(connection, authorizer)
    finally:  # the queries may run out of memory
        connection.execute("ROLLBACK")
    if (
        before is not None
        and (after := _state(connection, authorizer)) is not None
        and (before != after or change.startswith("ANALYZE"))  # which changes only rows
    ):
        _told.add(rules.owner)
        log(
            SchemaChangeUndone(database=rules.label, change=change),
            "%s on %s was rolled back with its transaction: here it is part of the transaction, "
            "whereas the stock driver commits it at once, or with the RELEASE of the savepoint "
            "that it is in. To keep it, call commit(), or use engine.begin()",
            change,
            rules.label,
        )


def _state(connection: sqlite3.Connection, authorizer: Authorizer) -> tuple[int, ...] | None:
    """Return the values that a schema change affects; None if a lock is in the way."""
    with contextlib.suppress(*dbapi.Error), authorizer.aside():
        return tuple(ask(connection, name) for name in _SET)
    return None


_SET = ("schema_version", "user_version", "application_id")
