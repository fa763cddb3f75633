"""Tables that are rebuilt while foreign keys are on, by which child rows would be lost."""

from __future__ import annotations

import sqlite3

from ..execution.replies import Execute, Parameters, Reply
from ..sqlite.authorizer import Authorizer
from ..sqlite.inspection import ask, rows
from ..sqlite.statements import quoted
from ..transactions.rules import Rules

# The copy that Alembic's batch mode fills, and gives the name of the table that it drops.
_COPY = "_alembic_tmp_"

_CHANGED_BY_DROP = """
SELECT child.name, key."from", key.on_delete
FROM main.sqlite_master AS child JOIN pragma_foreign_key_list(child.name) AS key
WHERE child.type = 'table' AND child.name <> ? COLLATE NOCASE AND key."table" = ? COLLATE NOCASE
AND key.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
"""


def keeping_children(table: str, authorizer: Authorizer, rules: Rules, execute: Execute) -> Execute:
    """Return how to execute DROP TABLE: it is refused if it is half of a rebuild that loses rows.

    "If foreign key constraints are enabled when it is prepared, then the DROP TABLE command
    performs an implicit DELETE to remove all rows from the table before dropping it", which "may
    invoke foreign key actions": https://www.sqlite.org/foreignkeys.html#fk_schemacommands
    The stock driver leaves foreign keys off. Where an action only refuses, SQLite does so itself.
    """

    def drop(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        with authorizer.aside():
            lost = _lost_by_drop(connection, table)
        if lost is not None:
            raise sqlite3.IntegrityError(
                f"DROP TABLE {table} of {rules.label} is refused: foreign keys are on, and the "
                f"table is to be replaced by {_COPY}{table}, so that {lost} would be lost. Migrate "
                "by run_env(), or send PRAGMA foreign_keys=OFF before the transaction begins"
            )
        return execute(connection, sql, parameters)

    return drop


def _lost_by_drop(connection: sqlite3.Connection, table: str) -> str | None:
    """Return what of another table a rebuild would delete or set, None if there is nothing."""
    copy = "SELECT 1 FROM main.sqlite_master WHERE name = ? COLLATE NOCASE"
    if not ask(connection, "foreign_keys") or not rows(connection, copy, (_COPY + table,)):
        return None
    for child, column, action in rows(connection, _CHANGED_BY_DROP, (table, table)):
        refers = f"SELECT 1 FROM main.{quoted(child)} WHERE {quoted(column)} NOT NULL LIMIT 1"  # noqa: S608
        if rows(connection, refers):
            return f"what refers to it in {child}.{column} (ON DELETE {action})"
    return None
