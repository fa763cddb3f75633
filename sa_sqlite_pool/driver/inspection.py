"""What a connection has that others do not: functions, collations, databases, settings.

The questions take some 100 microseconds together, in the connection's thread.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

# https://www.sqlite.org/datatype3.html#collating_sequences
_BUILT_IN_COLLATIONS = frozenset({"BINARY", "NOCASE", "RTRIM"})

# OFF and NORMAL: https://www.sqlite.org/pragma.html#pragma_synchronous
_COMMIT_DOES_NOT_SYNC = frozenset({0, 1})


def own_functions(connection: sqlite3.Connection) -> frozenset[str] | None:
    """The functions that somebody has registered, in lower case; None where SQLite cannot tell."""
    known = connection.execute("PRAGMA function_list").fetchall()  # before 3.30: nothing
    if not known:
        return None
    return frozenset(name.lower() for name, built_in, *_ in known if not built_in)


def has_own_collations(connection: sqlite3.Connection) -> bool:
    """Whether somebody has registered one."""
    collations = {name for _, name in connection.execute("PRAGMA collation_list")}
    return not collations <= _BUILT_IN_COLLATIONS


class Commits(NamedTuple):
    """What a COMMIT does: only writes to a log, and neither syncs it nor runs a checkpoint."""

    to_log: bool = False
    quick: bool = False


def commits_of(connection: sqlite3.Connection) -> Commits:
    """What a COMMIT of the connection does, as it is set now."""
    databases = {name for _, name, _ in connection.execute("PRAGMA database_list")}
    to_log = databases <= {"main", "temp"} and _ask(connection, "journal_mode") == "wal"
    syncs = _ask(connection, "synchronous") not in _COMMIT_DOES_NOT_SYNC
    moves = _ask(connection, "wal_autocheckpoint") != 0
    return Commits(to_log, to_log and not syncs and not moves)


def _ask(connection: sqlite3.Connection, pragma: str) -> object:
    return connection.execute(f"PRAGMA {pragma}").fetchone()[0]
