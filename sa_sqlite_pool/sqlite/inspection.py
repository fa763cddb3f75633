"""Queries about one connection: its functions, collations, databases and settings.

They take some 300 microseconds in the connection's thread, nearly all of it for the functions. All
connections that the package has just opened have the same functions, which are queried once.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from functools import cache
from typing import Any, NamedTuple

from .driver_errors import dbapi, is_busy, is_interrupted

# https://www.sqlite.org/datatype3.html#collating_sequences
_BUILT_IN_COLLATIONS = frozenset({"BINARY", "NOCASE", "RTRIM"})

# OFF and NORMAL: https://www.sqlite.org/pragma.html#pragma_synchronous
_COMMIT_DOES_NOT_SYNC = frozenset({0, 1})


def rows(connection: sqlite3.Connection, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
    """Return all rows of a query, regardless of the factories that the application has set."""
    cursor = connection.cursor()
    cursor.row_factory = None
    try:
        cursor.execute(sql, parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    except UnicodeDecodeError as error:
        # SQLite's message contains a name that is not UTF-8, which only a damaged schema has.
        raise sqlite3.DatabaseError(error.object.decode(errors="replace")) from None
    except sqlite3.DatabaseError as error:
        if error.args:
            raise
        raise type(error)(_message_of(error)) from None
    finally:
        cursor.close()
    if connection.text_factory is str:
        return found
    return [tuple(map(_plain, row)) for row in found]


def _message_of(error: sqlite3.DatabaseError) -> str:
    """Return a message for an error without one: Python 3.10 drops what is not UTF-8."""
    if type(error) is sqlite3.DatabaseError:  # SQLITE_CORRUPT, and only this message has a name
        return "malformed database schema (of a name that is not UTF-8)"
    return "the message contains a name that is not UTF-8"


def _plain(value: Any) -> Any:
    # ``text_factory`` belongs to the connection, which the application may be using right now.
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def ask(connection: sqlite3.Connection, pragma: str) -> Any:
    """Return the value of a PRAGMA; with ``name = value``, the new one."""
    return rows(connection, f"PRAGMA {pragma}")[0][0]


def own_functions(connection: sqlite3.Connection) -> frozenset[str] | None:
    """Return the functions registered on it, in lower case; None if SQLite cannot list them."""
    known = _rows_or_none(connection, "PRAGMA function_list")
    if not known:  # before SQLite 3.30 the list is empty
        return None
    return frozenset(name.lower() for name, built_in, *_ in known if not built_in)


def functions_of_new(connection: sqlite3.Connection) -> frozenset[str] | None:
    """Return what :func:`own_functions` returns for a connection without registered functions.

    These are the functions of compiled-in extensions, such as full-text search.
    """
    return _compiled_in(tuple(kind.__module__ for kind in type(connection).__mro__))


def may_execute(functions: frozenset[str] | None, connection: sqlite3.Connection) -> bool:
    """Return whether one of the connection's own functions may execute statements.

    The functions of compiled-in extensions do not, nor do those that SQLAlchemy's dialect registers
    on each connection.
    """
    if functions is None:
        return True
    return not functions - OF_SQLALCHEMY <= (functions_of_new(connection) or frozenset())


OF_SQLALCHEMY = frozenset({"floor", "regexp"})


@cache
def _compiled_in(modules: tuple[str, ...]) -> frozenset[str] | None:
    """Return the functions of a new connection of the first module that has ``connect()``."""
    for name in modules:
        connect = getattr(sys.modules.get(name), "connect", None)
        if connect is not None:
            with closing(connect(":memory:")) as connection:
                return own_functions(connection)
    return None


def has_own_collations(connection: sqlite3.Connection) -> bool:
    """Return whether a collation has been registered, or may have been."""
    known = _rows_or_none(connection, "PRAGMA collation_list")
    return known is None or not {name for _, name in known} <= _BUILT_IN_COLLATIONS


class Commits(NamedTuple):
    """Whether a COMMIT writes only to a log, and if so without sync or checkpoint (``quick``)."""

    to_log: bool = False
    quick: bool = False


def commits_of(connection: sqlite3.Connection) -> Commits:
    """Return what a COMMIT does with the current settings; assume the slowest if unknown."""
    try:
        databases = {name for _, name, _ in rows(connection, "PRAGMA database_list")}
        to_log = databases <= {"main", "temp"} and ask(connection, "journal_mode") == "wal"
        syncs = ask(connection, "synchronous") not in _COMMIT_DOES_NOT_SYNC
        moves = ask(connection, "wal_autocheckpoint") != 0
    except dbapi.DatabaseError as error:
        if _passes(error):
            raise
        return Commits()
    return Commits(to_log, to_log and not syncs and not moves)


def _rows_or_none(connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]] | None:
    """Return the rows; None if the query is refused, as an application's authorizer may do."""
    try:
        return rows(connection, sql)
    except dbapi.DatabaseError as error:
        if _passes(error):
            raise
        return None


def _passes(error: Exception) -> bool:
    """Return whether the error is temporary (a lock, an interrupt), so the query is retried."""
    return is_busy(error) or is_interrupted(error)


def should_write(connection: sqlite3.Connection, file: str) -> bool:
    """Return whether only the connection itself prevents writes to the database ``file``.

    If a file cannot be opened for writing (for example, because no file descriptor is left), SQLite
    opens it for reading without an error (``unixOpen()`` in its os_unix.c), and likewise the log
    and its index. Every write then fails with SQLITE_READONLY, and only a new connection helps.

    Return False if the application's ``PRAGMA query_only``, the permissions or a read-only mount
    prevent them, because that applies to any connection. Call this in the connection's thread.
    """
    if ask(connection, "query_only") != 0:
        return False
    directory = os.path.dirname(file)
    return os.access(directory, os.W_OK | os.X_OK) and all(
        os.access(path, os.W_OK)
        for path in (f"{file}{side}" for side in ("", "-wal", "-shm"))
        if os.path.exists(path)
    )
