"""SQLite's authorizer as the last word on who may write.

SQLite asks its authorizer while it compiles a statement, before anything runs, and says exactly
what the statement would do: https://www.sqlite.org/c3ref/set_authorizer.html. The alternative,
``PRAGMA query_only``, expires every prepared statement of the connection when it is switched
(``OP_Expire`` in SQLite's pragma.c), and any statement can switch it off.

A statement that is already compiled is not asked about again. That is sound because a text that
was compiled as a write either looks like one (``statements.classify``) or was denied once before
and is remembered by the connection.
"""

from __future__ import annotations

import enum
import sqlite3
from typing import final

from . import statements

# Actions that only read, and are asked about for every column of every statement.
_READS = frozenset(
    {
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
    }
)

_WRITES = {
    sqlite3.SQLITE_INSERT: "INSERT",
    sqlite3.SQLITE_UPDATE: "UPDATE",
    sqlite3.SQLITE_DELETE: "DELETE",
    sqlite3.SQLITE_CREATE_INDEX: "CREATE INDEX",
    sqlite3.SQLITE_CREATE_TABLE: "CREATE TABLE",
    sqlite3.SQLITE_CREATE_TRIGGER: "CREATE TRIGGER",
    sqlite3.SQLITE_CREATE_VIEW: "CREATE VIEW",
    sqlite3.SQLITE_DROP_INDEX: "DROP INDEX",
    sqlite3.SQLITE_DROP_TABLE: "DROP TABLE",
    sqlite3.SQLITE_DROP_TRIGGER: "DROP TRIGGER",
    sqlite3.SQLITE_DROP_VIEW: "DROP VIEW",
    sqlite3.SQLITE_ALTER_TABLE: "ALTER TABLE",
    sqlite3.SQLITE_REINDEX: "REINDEX",
    sqlite3.SQLITE_ANALYZE: "ANALYZE",
    sqlite3.SQLITE_CREATE_VTABLE: "CREATE VIRTUAL TABLE",
    sqlite3.SQLITE_DROP_VTABLE: "DROP VIRTUAL TABLE",
}


class Access(enum.Enum):
    """What a connection may do now."""

    ALL = enum.auto()
    NO_WRITES = enum.auto()  # a swap-in connection that does not have the write turn
    READER = enum.auto()  # nor change anything else that outlives it: settings, other files


@final
class Guard:
    """Denies what ``access`` does not include. Called by SQLite in the thread that executes.

    Temp tables and triggers are the connection's own and always allowed. ``denied`` is what was
    refused last. ``called`` says that a statement calls one of ``functions``, those of the
    application, in lower case; None if nobody has asked for them. ``inline`` denies those, too.
    """

    __slots__ = ("access", "called", "denied", "functions", "inline")

    def __init__(self, access: Access) -> None:
        self.access = access
        self.denied: str | None = None
        self.functions: frozenset[str] | None = None
        self.called = False
        self.inline = False

    def __call__(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        source: str | None,
    ) -> int:
        if action == sqlite3.SQLITE_FUNCTION and self._is_own(second):
            self.called = True
            if self.inline:
                return sqlite3.SQLITE_DENY
        if self.access is Access.ALL or action in _READS:
            return sqlite3.SQLITE_OK
        refusal = self._refusal(action, first, second, database)
        if refusal is None:
            return sqlite3.SQLITE_OK
        self.denied = refusal
        return sqlite3.SQLITE_DENY

    def _is_own(self, function: str | None) -> bool:
        own = self.functions
        return own is not None and function is not None and function.lower() in own

    def _refusal(
        self, action: int, first: str | None, second: str | None, database: str | None
    ) -> str | None:
        if action == sqlite3.SQLITE_ALTER_TABLE:  # the only one with the database in front
            database, first = first, second
        if action in _WRITES:
            return None if database == "temp" else f"{_WRITES[action]} {first or ''}".strip()
        if action == sqlite3.SQLITE_PRAGMA:
            return None if self._pragma_allowed(first or "", second) else f"PRAGMA {first}"
        if self.access is not Access.READER:
            return None
        if action == sqlite3.SQLITE_ATTACH:
            return "ATTACH or VACUUM INTO"  # VACUUM attaches the file that it writes
        if action == sqlite3.SQLITE_FUNCTION and second == "load_extension":
            return "load_extension()"
        return None

    def _pragma_allowed(self, name: str, value: str | None) -> bool:
        if self.access is Access.READER:
            return statements.reader_may(name, value)
        return not statements.pragma_writes(name, has_value=value is not None)
