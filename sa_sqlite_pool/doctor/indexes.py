"""Indexes that are missing or redundant, and primary keys that are not what they look like."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from ..sqlite.inspection import rows
from ..sqlite.tokens import quoted
from .contents import tables_of
from .findings import Finding, Severity, Subject, as_written

LARGE_TABLE = 10_000
"""The number of rows from which a scan of the whole table is noticeable."""

# Only "INTEGER PRIMARY KEY" is the rowid (https://www.sqlite.org/lang_createtable.html#rowid).
_OTHER_INTEGERS = frozenset(
    {
        "INT",
        "TINYINT",
        "SMALLINT",
        "MEDIUMINT",
        "BIGINT",
        "INT2",
        "INT4",
        "INT8",
        "UNSIGNED BIG INT",
    }
)


class _Index(NamedTuple):
    name: str
    unique: bool
    origin: str  # "c" for CREATE INDEX, "u" for UNIQUE, "pk" for PRIMARY KEY
    partial: bool
    columns: tuple[str | None, ...]  # None for an expression


def check_indexes(connection: sqlite3.Connection, subject: Subject) -> Iterator[Finding]:
    for table in tables_of(connection):
        indexes = _indexes(connection, table)
        yield from _check_primary_key(connection, table, indexes)
        yield from _check_children(connection, subject, table, indexes)
        yield from _check_doubles(connection, subject, table, indexes)


def _indexes(connection: sqlite3.Connection, table: str) -> list[_Index]:
    listed = rows(
        connection, 'SELECT name, "unique", origin, partial FROM pragma_index_list(?)', [table]
    )
    return [
        _Index(name, bool(unique), origin, bool(partial), _columns(connection, name))
        for name, unique, origin, partial in listed
    ]


def _columns(connection: sqlite3.Connection, index: str) -> tuple[str | None, ...]:
    found = rows(connection, "SELECT name FROM pragma_index_info(?) ORDER BY seqno", [index])
    return tuple(None if name is None else name.lower() for (name,) in found)


def _primary_key(connection: sqlite3.Connection, table: str) -> list[tuple[str, str]]:
    """Return the name and the declared type of each column of the primary key."""
    sql = "SELECT lower(name), upper(type) FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk"
    return [(name, kind) for name, kind in rows(connection, sql, [table])]


def _check_primary_key(
    connection: sqlite3.Connection, table: str, indexes: list[_Index]
) -> Iterator[Finding]:
    key = _primary_key(connection, table)
    if len(key) != 1 or key[0][1] not in _OTHER_INTEGERS or not _has_rowid(connection, table):
        return
    name, kind = key[0]
    yield Finding(
        "primary-key-type",
        Severity.INFO,
        f"{table}.{name} is declared {kind} PRIMARY KEY: only INTEGER makes it the rowid, "
        "which numbers new rows automatically and needs no separate index",
        f"rebuild the table with {name} INTEGER PRIMARY KEY; in SQLAlchemy, "
        'BigInteger().with_variant(Integer, "sqlite")',
    )


def _has_rowid(connection: sqlite3.Connection, table: str) -> bool:
    try:
        connection.execute(f"SELECT rowid FROM {quoted(table)} LIMIT 0")  # noqa: S608
    except sqlite3.OperationalError:
        return False
    return True


def _check_children(
    connection: sqlite3.Connection, subject: Subject, table: str, indexes: list[_Index]
) -> Iterator[Finding]:
    """Find foreign keys whose rows need a table scan when a parent row is deleted or changed.

    https://www.sqlite.org/foreignkeys.html#fk_indexes
    """
    keys: dict[int, list[str]] = {}
    for number, column in rows(
        connection, 'SELECT id, "from" FROM pragma_foreign_key_list(?) ORDER BY id, seq', [table]
    ):
        keys.setdefault(number, []).append(column)
    own = [name for name, _ in _primary_key(connection, table)]
    is_rowid = len(own) == 1 and all(index.origin != "pk" for index in indexes)
    for columns in keys.values():
        wanted = {column.lower() for column in columns}
        # A partial index may suffice, if its condition holds for all rows that have a parent.
        if (is_rowid and wanted == set(own)) or any(
            set(index.columns[: len(wanted)]) == wanted for index in indexes
        ):
            continue
        large = _is_large(connection, table)
        listed = ", ".join(columns)
        name = as_written(_free_name(connection, f"ix_{table}_{'_'.join(columns)}"))
        on = f"{as_written(table)} ({', '.join(map(as_written, columns))})"
        yield Finding(
            "foreign-key-without-index",
            Severity.WARNING if large else Severity.INFO,
            f"{table} has no index on its foreign key {listed}"
            + (f", and at least {LARGE_TABLE:,} rows" if large else "")
            + ": to delete a row of the parent, or to change its key, SQLite scans the whole table",
            subject.sql(f"CREATE INDEX {name} ON {on}"),
        )


def _free_name(connection: sqlite3.Connection, wanted: str) -> str:
    """Return an unused name for an index; in SQLite, tables and indexes share a namespace."""
    taken = {name.lower() for (name,) in rows(connection, "SELECT name FROM sqlite_master")}
    found, number = wanted, 2
    while found.lower() in taken:
        found, number = f"{wanted}_{number}", number + 1
    return found


def _is_large(connection: sqlite3.Connection, table: str) -> bool:
    sql = f"SELECT 1 FROM {quoted(table)} LIMIT 1 OFFSET {LARGE_TABLE - 1}"  # noqa: S608
    return bool(rows(connection, sql))


def _check_doubles(
    connection: sqlite3.Connection, subject: Subject, table: str, indexes: list[_Index]
) -> Iterator[Finding]:
    """Find indexes made redundant by another index on the same columns."""
    kept: dict[object, _Index] = {}
    for index in sorted(indexes, key=lambda each: (each.origin == "c", not each.unique, each.name)):
        if index.partial or None in index.columns:
            continue
        order = rows(
            connection,
            'SELECT lower(name), "desc", coll FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno',
            [index.name],
        )
        first = kept.setdefault(tuple(order), index)
        if first is not index and index.origin == "c":
            yield Finding(
                "double-index",
                Severity.INFO,
                f"the indexes {index.name} and {first.name} of {table} are on the same columns: "
                "each write pays for both",
                subject.sql(f"DROP INDEX {as_written(index.name)}"),
            )
