"""A change of the schema that is rolled back, which the stock driver would have committed.

The stock driver commits DDL outside a transaction, and a PRAGMA such as user_version, at once,
since ``sqlite3`` begins a transaction for DML only. Here it is part of the transaction, and undone
if the connection is given back without ``commit()``. A warning says so.
"""

from __future__ import annotations

import contextlib
import sqlite3
import weakref

from ..reporting.events import SchemaChangeUndone, log
from ..sqlite.authorizer import Authorizer
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask
from .rules import Rules

_told: weakref.WeakSet[object] = weakref.WeakSet()  # engines that were warned


def roll_back(connection: sqlite3.Connection, authorizer: Authorizer, rules: Rules) -> None:
    """Roll back, and log a change that it undoes, once for each engine. Runs in the thread."""
    if rules.owner in _told:
        connection.execute("ROLLBACK")
        return
    before = None
    try:
        before = _state(connection, authorizer)
    finally:  # there may be no memory for a question
        connection.execute("ROLLBACK")
    if (
        before is not None
        and (after := _state(connection, authorizer)) is not None
        and before != after
    ):
        _told.add(rules.owner)
        change = authorizer.schema_change or "a change of the schema"
        log(
            SchemaChangeUndone(database=rules.label, change=change),
            "%s on %s was rolled back with its transaction, of which it is a part here; the stock "
            "driver commits it at once. To keep it, call commit(), or use engine.begin()",
            *(change, rules.label),
        )


def _state(connection: sqlite3.Connection, authorizer: Authorizer) -> tuple[int, ...] | None:
    """Return what the schema change affects; None if a lock is in the way."""
    with contextlib.suppress(*dbapi.Error), authorizer.aside():
        return tuple(ask(connection, name) for name in _SET)
    return None


_SET = ("schema_version", "user_version", "application_id")
