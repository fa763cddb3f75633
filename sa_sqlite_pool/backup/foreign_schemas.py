"""Databases whose schema has collations or functions of the application.

A connection that this package opens for itself does not have them: what an application registers,
it registers on the connections of its engines. "no such collation sequence" and "unknown function"
are then no damage.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

_FUNCTION = re.compile(r"unknown function: (.+)\(\)")
_COLLATION = "no such collation sequence"

# Not by pragma_collation_list, which has those that were asked for in vain, too. And
# "PRAGMA index_info … if there is no index with that name, but a WITHOUT ROWID table": its key.
_COLLATIONS = """
SELECT DISTINCT coll FROM sqlite_master, pragma_index_xinfo(sqlite_master.name)
WHERE type IN ('index', 'table') AND coll IS NOT NULL
    AND upper(coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')
"""

_OF_VALUES = re.compile(
    r"(NULL|TEXT|NUMERIC|non-\w+) value in .+|CHECK constraint failed in .+", re.DOTALL
)


def is_of_values(line: str) -> bool:
    """Return whether a line of ``integrity_check`` is of a value that the schema does not allow.

    The file is sound then: the schema was changed after the row was written (``writable_schema``),
    say, or a column is computed by a substitute.
    """
    return _OF_VALUES.fullmatch(line) is not None


def is_strange(error: sqlite3.OperationalError) -> bool:
    """Return whether the schema has what this connection does not."""
    return _COLLATION in str(error) or _FUNCTION.search(str(error)) is not None


def add_collations(connection: sqlite3.Connection) -> None:
    """Have a collation by each name that is not SQLite's own, so that rows can be read.

    They compare texts by their characters: nothing may be looked for by an index that has one.
    """
    for (name,) in connection.execute(_COLLATIONS).fetchall():
        connection.create_collation(name, lambda one, other: (one > other) - (one < other))


def quick_check(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the lines of ``PRAGMA quick_check``, without the application's own functions.

    It examines all pages and rows, but not the order of indexes, nor what CHECK says.
    """
    add_collations(connection)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    substitutes: set[str] = set()
    while (name := _missing_function(connection)) not in {None, *substitutes}:
        assert name is not None
        substitutes.add(name)
        connection.create_function(name, -1, lambda *_: None, deterministic=True)
    for (line,) in connection.execute(f"PRAGMA quick_check({ALL_LINES})"):
        yield line


ALL_LINES = 2**31 - 1


def _missing_function(connection: sqlite3.Connection) -> str | None:
    try:
        connection.execute("EXPLAIN PRAGMA quick_check").fetchone()
    except sqlite3.OperationalError as error:
        match = _FUNCTION.search(str(error))
        if match is None:
            raise
        return match[1]
    return None
