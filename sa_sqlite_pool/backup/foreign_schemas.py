"""Databases whose schema uses collations or functions of the application.

A connection that this package opens for itself does not have them: an application registers them
on the connections of its engines. "no such collation sequence" and "unknown function" then do not
indicate damage.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

_FUNCTION = re.compile(r"unknown function: (.+)\(\)")
_COLLATION = "no such collation sequence"

# pragma_collation_list would also contain collations that were requested in vain. And "if there is
# no index with that name, but a WITHOUT ROWID table", PRAGMA index_info returns the table's key.
_COLLATIONS = """
SELECT DISTINCT coll FROM sqlite_master, pragma_index_xinfo(sqlite_master.name)
WHERE type IN ('index', 'table') AND coll IS NOT NULL
    AND upper(coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')
"""

_OF_VALUES = re.compile(
    r"(NULL|TEXT|NUMERIC|non-\w+) value in .+|CHECK constraint failed in .+", re.DOTALL
)


def is_of_values(line: str) -> bool:
    """Return whether a line of ``integrity_check`` concerns a value that the schema does not allow.

    The file itself is then intact: for example, the schema was changed after the row was written
    (``writable_schema``), or a column is computed by a substitute.
    """
    return _OF_VALUES.fullmatch(line) is not None


def is_strange(error: sqlite3.OperationalError) -> bool:
    """Return whether the schema uses a collation or function that this connection lacks."""
    return _COLLATION in str(error) or _FUNCTION.search(str(error)) is not None


def add_collations(connection: sqlite3.Connection) -> None:
    """Register a collation for each name that is not SQLite's own, so that rows can be read.

    They compare texts by their characters: no search may use an index that has one of them.
    """
    for (name,) in connection.execute(_COLLATIONS).fetchall():
        connection.create_collation(name, lambda one, other: (one > other) - (one < other))


def quick_check(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the lines of ``PRAGMA quick_check``, without the application's own functions.

    It examines all pages and rows, but neither the order of indexes nor CHECK constraints.
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
