"""Tables that are rebuilt while foreign keys are on, which would lose child rows."""

from __future__ import annotations

import sqlite3
from itertools import groupby
from operator import itemgetter

from ..execution.replies import Execute, Parameters, Reply
from ..sqlite.authorizer import Authorizer
from ..sqlite.inspection import ask, rows
from ..sqlite.statements import Dropped
from ..sqlite.tokens import quoted
from ..transactions.rules import Rules

# The copy that Alembic's batch mode fills, and renames to the table that it drops.
_COPY, _LONGEST = "_alembic_tmp_", 50

# For each foreign key through which DROP TABLE would change rows: its columns, and those that it
# references. A key that references something nonexistent has no effect.
_CHANGED_BY_DROP = """
SELECT child.name, key.id, key.on_delete, key."from", parent.name
FROM {schema}.sqlite_master AS child
JOIN pragma_foreign_key_list(child.name, :schema) AS key
JOIN pragma_table_xinfo(:table, :schema) AS parent
ON CASE WHEN key."to" IS NULL THEN parent.pk = key.seq + 1
ELSE parent.name = key."to" COLLATE NOCASE END
WHERE child.type = 'table' AND child.name <> :table COLLATE NOCASE
AND key."table" = :table COLLATE NOCASE
AND key.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
ORDER BY child.name, key.id, key.seq
"""


def keeping_children(
    dropped: Dropped, authorizer: Authorizer, rules: Rules, execute: Execute
) -> Execute:
    """Return a function that executes DROP TABLE, or refuses it in a rebuild that loses rows.

    "If foreign key constraints are enabled when it is prepared, then the DROP TABLE command
    performs an implicit DELETE to remove all rows from the table before dropping it", which "may
    invoke foreign key actions": https://www.sqlite.org/foreignkeys.html#fk_schemacommands
    The stock driver leaves foreign keys off. If a key's action is to refuse, SQLite itself refuses.
    """

    def drop(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Reply:
        with authorizer.aside():
            lost = _lost_by_drop(connection, dropped)
        if lost is not None:
            table = dropped.table
            raise sqlite3.IntegrityError(
                f"DROP TABLE {table} of {rules.label} is refused: foreign keys are on, and the "
                f"table is to be replaced by {_copy_of(table)}, so that {lost} would be lost. "
                "Migrate with run_env(), or send PRAGMA foreign_keys=OFF before the transaction "
                "begins"
            )
        return execute(connection, sql, parameters)

    return drop


def _copy_of(table: str) -> str:
    return f"{_COPY}{table}"[:_LONGEST]


def _lost_by_drop(connection: sqlite3.Connection, dropped: Dropped) -> str | None:
    """Return a phrase for what a rebuild would delete or change in another table, or None."""
    table, schema = dropped.table, dropped.schema
    if not ask(connection, "foreign_keys") or not _schema_of(connection, schema, _copy_of(table)):
        return None
    schema = _schema_of(connection, schema, table)
    if schema is None:
        return None
    in_schema = quoted(schema)
    found = rows(
        connection,
        _CHANGED_BY_DROP.format(schema=in_schema),
        {"schema": schema, "table": table},
    )
    for (child, _, action), key in groupby(found, itemgetter(0, 1, 2)):
        columns = [(column, to) for *_, column, to in key]
        refers = " AND ".join(f"parent.{quoted(to)} = child.{quoted(one)}" for one, to in columns)
        both = f"{in_schema}.{quoted(child)} AS child, {in_schema}.{quoted(table)} AS parent"
        if rows(connection, f"SELECT 1 FROM {both} WHERE {refers} LIMIT 1"):  # noqa: S608
            names = ", ".join(f"{child}.{column}" for column, _ in columns)
            return f"the rows or values that refer to it in {names} (ON DELETE {action})"
    return None


def _schema_of(connection: sqlite3.Connection, schema: str | None, table: str) -> str | None:
    """Return the database in which SQLite finds a table; "temp" is searched first."""
    names = [schema]
    if schema is None:
        names = [name for _, name, _ in rows(connection, "PRAGMA database_list")]
        names.sort(key=lambda name: name != "temp")
    for name in filter(None, names):
        asked = f"SELECT 1 FROM {quoted(name)}.sqlite_master WHERE name = ? COLLATE NOCASE"  # noqa: S608
        if rows(connection, asked, (table,)):
            return name
    return None
