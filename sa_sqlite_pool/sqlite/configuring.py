"""Set up a connection that has just been opened, in its thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from ..errors import DatabaseNotUsableError, NotADatabaseError
from ..files.location import Location
from .driver_errors import dbapi
from .inspection import ask, rows

_BEFORE_JOURNAL_MODE = ("page_size", "auto_vacuum")  # no effect on a file that has pages


def file_of(connection: sqlite3.Connection) -> str | None:
    """Return the path of the database as SQLite knows it; None for a database in memory."""
    # "file associated with that database …, or an empty string":
    # https://www.sqlite.org/pragma.html#pragma_database_list
    return next((file for _, name, file in rows(connection, "PRAGMA database_list")), None) or None


def configure(
    connection: sqlite3.Connection,
    location: Location,
    pragmas: Mapping[str, Any],
    *,
    exclusively: bool,
    defaults: frozenset[str] = frozenset(),
) -> bool:
    """Set the connection up for ``pragmas``; return whether the journal mode was switched.

    ``exclusively`` means that the journal mode is switched under an exclusive lock, since shared
    memory may fail where the file is. The pragmas in ``defaults`` do not override settings that the
    application has made on the connection.
    """
    connection.execute("PRAGMA busy_timeout = 0")  # tasks wait for locks instead, in order
    switches = location.writable and "journal_mode" in pragmas
    if switches and exclusively:
        # Without shared memory, a file in WAL mode cannot even be read, unless "EXCLUSIVE is set
        # prior to the first WAL-mode database access": https://www.sqlite.org/wal.html#noshm
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
    _check_is_database(connection, location.label)
    switched = switches and _switch_journal_mode(connection, pragmas, location.label)
    if switches and exclusively:
        connection.execute("PRAGMA locking_mode = NORMAL").fetchone()
        connection.execute("PRAGMA schema_version").fetchone()  # releases the exclusive lock
    left = {name for name in defaults if _is_set(connection, name)}
    wanted = {name: value for name, value in pragmas.items() if name not in left}
    _set_pragmas(connection, wanted, location.label)
    return switched


class NotPrepared(Exception):  # noqa: N818 - no error: it is prepared then
    """The database that a reader has opened is not in the requested journal mode."""


def is_prepared(connection: sqlite3.Connection, pragmas: Mapping[str, Any]) -> bool:
    """Return whether the database has the journal mode of ``pragmas``, if they include one."""
    if "journal_mode" not in pragmas:
        return True
    return _journal_mode(connection) in {str(pragmas["journal_mode"]).lower(), "memory"}


def _check_is_database(connection: sqlite3.Connection, label: str) -> None:
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except dbapi.DatabaseError as error:
        if isinstance(error, dbapi.OperationalError):
            raise
        raise NotADatabaseError(
            f"{label} is not an SQLite database ({error}); it was not changed. Check the path, or "
            "restore the file from a backup"
        ) from error


def _switch_journal_mode(
    connection: sqlite3.Connection, pragmas: Mapping[str, Any], label: str
) -> bool:
    wanted = str(pragmas["journal_mode"]).lower()
    mode = _journal_mode(connection)
    if mode in {wanted, "memory"}:
        return False
    for name in _BEFORE_JOURNAL_MODE:
        if name in pragmas:
            connection.execute(f"PRAGMA {name} = {pragmas[name]}")
    mode = _journal_mode(connection, f" = {wanted}")
    if mode != wanted:
        raise DatabaseNotUsableError(
            f"{label} stays in journal_mode={mode} because SQLite refused {wanted}; WAL needs "
            'shared memory, which network file systems lack: pragmas={"journal_mode": "TRUNCATE"} '
            "works without it"
        )
    return True


def _journal_mode(connection: sqlite3.Connection, change: str = "") -> str:
    return str(ask(connection, f"journal_mode{change}")).lower()


def _is_set(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether the value of a PRAGMA differs from that of a new SQLite connection."""
    return name in _OF_NEW and ask(connection, name) != _OF_NEW[name]


# https://www.sqlite.org/pragma.html, https://www.sqlite.org/compile.html
_OF_NEW = {"synchronous": 2, "cache_size": -2000, "temp_store": 0, "journal_size_limit": -1}


def _set_pragmas(connection: sqlite3.Connection, pragmas: Mapping[str, Any], label: str) -> None:
    for name, value in pragmas.items():
        if name != "journal_mode":
            connection.execute(f"PRAGMA {name} = {value}")
    # "This pragma is a no-op within a transaction", and in an SQLite built without foreign keys:
    # https://www.sqlite.org/pragma.html#pragma_foreign_keys
    if pragmas.get("foreign_keys") == "ON" and ask(connection, "foreign_keys") != 1:
        raise DatabaseNotUsableError(f"{label}: SQLite does not enforce foreign keys here")
