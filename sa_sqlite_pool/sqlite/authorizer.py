"""SQLite's authorizer: what a statement would do, as SQLite itself reports it.

SQLite calls its authorizer while it compiles a statement, before anything runs, and reports exactly
what the statement would do: https://www.sqlite.org/c3ref/set_authorizer.html. A connection has one
authorizer, so this one also calls the application's, and respects its refusal.

The authorizer is not what prevents a reader from writing: its connection is read-only. It records
attempts, even if a function swallows SQLite's error, and denies actions that a read-only connection
permits. On a connection without the write turn (swap-in or in AUTOCOMMIT), it denies writes, so
that they acquire the turn first.

The actions reported to the authorizer are not always those of the statement. A virtual table is
connected when a statement that names it is compiled: SQLite then compiles an UPDATE of its schema
table, which never runs (``sqlite3_declare_vtab()`` of 3.40), and R-tree compiles its writes in
advance (``rtreeSqlInit()``). The former is ignored here; ``examination.py`` finds out whether
the statement does anything but the latter.
"""

from __future__ import annotations

import contextlib
import enum
import sqlite3
from collections.abc import Callable, Iterator
from typing import final

from ..settings import is_on
from . import statements

AuthorizerCallback = Callable[[int, "str | None", "str | None", "str | None", "str | None"], int]

# Actions that only read. SQLite calls the authorizer with them for every column of a statement.
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

_DML = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})

_DDL = _WRITES.keys() - _DML

_TEMP_SCHEMA = frozenset(
    {
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
        sqlite3.SQLITE_DROP_TEMP_INDEX,
        sqlite3.SQLITE_DROP_TEMP_TABLE,
        sqlite3.SQLITE_DROP_TEMP_TRIGGER,
        sqlite3.SQLITE_DROP_TEMP_VIEW,
    }
)

_ATTACHES = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})

# Names of the schema table: https://www.sqlite.org/schematab.html
_SCHEMA_TABLES = frozenset(
    {"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"}
)


class Access(enum.Enum):
    """The actions that are allowed on a connection at the moment."""

    ALL = enum.auto()
    NOTED = enum.auto()  # like ALL, but writes are recorded
    EXAMINED = enum.auto()  # like NOTED, but no PRAGMA is set: some take effect when compiled
    NO_WRITES = enum.auto()  # without the write turn: swap-in or in AUTOCOMMIT
    READER = enum.auto()  # SQLite refuses writes; the authorizer refuses ATTACH and some PRAGMAs
    READER_TEMP = enum.auto()  # like READER, with query_only off: temp tables may be written


_MADE_FOR_TABLES = ("sqlite_autoindex_", "sqlite_sequence")
_READERS = frozenset({Access.READER, Access.READER_TEMP})
_ALLOW_WRITES = frozenset({Access.ALL, Access.NOTED})
_DENY_WRITES = frozenset({Access.NO_WRITES, Access.READER_TEMP})


@final
class Authorizer:
    """The authorizer of one connection. SQLite calls it in the thread that executes the statement.

    ``attempted`` is the last write that a statement tried or made although ``access`` does not
    include it; ``denied`` is the last action that was refused here. ``temp_schema`` counts changes
    to the temp schema, which belongs to the connection; ``schema_changes`` counts other changes
    that do not concern rows: DDL, and PRAGMAs that change a file; ``schema_change`` is the last of
    them. ``attached`` counts ATTACH and DETACH. ``busy_timeout`` is True if SQLite's busy timeout
    was set. ``called`` is True if a statement calls one of ``functions``, the application's
    functions in lower case; None while they are not known. ``inline`` denies these calls, too.
    ``functions_may_write`` is True if one of the functions may execute statements, and
    ``compiled_writes`` if a write of one may be compiled already, so that SQLite does not call
    the authorizer for it again. ``application`` is the application's own authorizer. ``refuses`` is
    called with the name and value of each PRAGMA that is set.
    """

    __slots__ = (
        "_last",
        "access",
        "application",
        "attached",
        "attempted",
        "busy_timeout",
        "called",
        "compiled_writes",
        "denied",
        "functions",
        "functions_may_write",
        "inline",
        "refuses",
        "schema_change",
        "schema_changes",
        "shadows",
        "shadows_of",
        "temp_schema",
    )

    def __init__(self) -> None:
        self.access = Access.ALL
        self.application: AuthorizerCallback | None = None
        self.refuses: Callable[[str, str], bool] | None = None
        self.shadows: frozenset[tuple[str, str]] = frozenset()  # schemas and names
        self.shadows_of: tuple[int, int] | None = None  # the versions of schema and databases
        self.attempted: str | None = None
        self.denied: str | None = None
        self.temp_schema = 0
        self.schema_changes = 0
        self.schema_change: str | None = None
        self.attached = 0
        self.busy_timeout = False
        self.functions: frozenset[str] | None = None
        self.functions_may_write = False
        self.compiled_writes = False
        self.called = False
        self.inline = False
        self._last = 0  # the previous action, unless it only reads

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
        if self.application is not None:
            verdict = self.application(action, first, second, database, source)
            if verdict != sqlite3.SQLITE_OK:
                return verdict
        if action in _READS:
            return sqlite3.SQLITE_OK
        # For a temp trigger, SQLite also reports an INSERT, which never runs, into the schema
        # table of the database of its table (``sqlite3BeginTrigger()`` in its trigger.c).
        last, self._last = self._last, action
        of_temp_trigger = (
            action == sqlite3.SQLITE_INSERT and last == sqlite3.SQLITE_CREATE_TEMP_TRIGGER
        )
        self._note(action, first, second, database)
        if (
            action == sqlite3.SQLITE_PRAGMA
            and self.refuses is not None
            and (first is not None and second is not None and self.refuses(first, second))
        ):
            return sqlite3.SQLITE_DENY
        if self.functions_may_write and action in _WRITES:
            self.compiled_writes = self.compiled_writes or self.access in _ALLOW_WRITES
        if self.access is Access.ALL or of_temp_trigger:
            return sqlite3.SQLITE_OK
        return self._judge(action, first, second, database)

    @contextlib.contextmanager
    def allowing(self, access: Access = Access.ALL) -> Iterator[None]:
        """Allow ``access`` while the package executes a request of the application differently."""
        resting, self.access = self.access, access
        try:
            yield
        finally:
            self.access = resting

    def aside(self) -> _Aside:
        """Let the package execute statements of its own; this authorizer denies none of them.

        The application's authorizer is not called: it may allow only the application's statements.
        """
        return _Aside(self)

    def _is_own(self, function: str | None) -> bool:
        own = self.functions
        return own is not None and function is not None and function.lower() in own

    def _note(
        self, action: int, first: str | None, second: str | None, database: str | None
    ) -> None:
        # CREATE TABLE temp.t is a CREATE TABLE in "temp", and an INSERT into its schema table.
        if (
            action in _TEMP_SCHEMA
            or (database == "temp" and first in _SCHEMA_TABLES)
            or (action == sqlite3.SQLITE_ALTER_TABLE and first == "temp")
        ):
            self.temp_schema += 1
        elif action in _ATTACHES:
            self.attached += 1
        elif action == sqlite3.SQLITE_PRAGMA and second is not None and first is not None:
            self.busy_timeout = self.busy_timeout or first.lower() == "busy_timeout"
            if statements.pragma_writes(first, has_value=True):
                self.schema_changes += 1
                self.schema_change = f"PRAGMA {first}"
        elif action in _DDL:
            self.schema_changes += 1
            # REINDEX follows CREATE INDEX, and SQLite's own objects for a table its CREATE TABLE.
            if action != sqlite3.SQLITE_REINDEX and not (first or "").startswith(_MADE_FOR_TABLES):
                self.schema_change = _writes(action, first, second, database) or self.schema_change

    def _judge(
        self, action: int, first: str | None, second: str | None, database: str | None
    ) -> int:
        sets = action == sqlite3.SQLITE_PRAGMA and second is not None
        if sets and self.access is Access.EXAMINED and not statements.pragma_asks(first or ""):
            return sqlite3.SQLITE_DENY
        if self.access in _READERS and (refusal := _passes_read_only(action, first, second)):
            self.denied = self.attempted = refusal
            return sqlite3.SQLITE_DENY
        written = _writes(action, first, second, database)
        if written is None or (
            action in _DML and ((database or "").lower(), (first or "").lower()) in self.shadows
        ):
            return sqlite3.SQLITE_OK
        self.attempted = written
        if self.access not in _DENY_WRITES:
            return sqlite3.SQLITE_OK
        self.denied = written
        return sqlite3.SQLITE_DENY


def _writes(action: int, first: str | None, second: str | None, database: str | None) -> str | None:
    """Return, for messages, what the action would write to a database file; None if nothing."""
    if action == sqlite3.SQLITE_ALTER_TABLE:  # the only one whose first argument is the database
        database, first = first, second
    if action in _WRITES:
        declared = action == sqlite3.SQLITE_UPDATE and first in _SCHEMA_TABLES
        return (
            None if database == "temp" or declared else f"{_WRITES[action]} {first or ''}".strip()
        )
    if action == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        writes = statements.pragma_writes(name, has_value=second is not None)
        changes = name == "journal_mode" and second is not None and second.lower() != "wal"
        return f"PRAGMA {name}" if writes or changes or name == "wal_checkpoint" else None
    if action == sqlite3.SQLITE_FUNCTION and second == "optimize":
        # FTS3 and FTS4 merge the index with statements that are compiled only once, and for which
        # SQLite calls no authorizer: https://www.sqlite.org/fts3.html#_optimize
        return "SELECT optimize()"
    return None


def _passes_read_only(action: int, first: str | None, second: str | None) -> str | None:
    """Return the action if a read-only connection allows it but a reader must not; else None."""
    if action == sqlite3.SQLITE_ATTACH:
        # SQLite opens an attached file for reading and writing, however main was opened
        # (``attachFunc()`` in its attach.c), and VACUUM attaches the file that it writes.
        return None if first in {"", ":memory:"} else "ATTACH or VACUUM INTO"
    if action == sqlite3.SQLITE_PRAGMA and first is not None:
        return _passes_by_pragma(first.lower(), None if second is None else second.lower())
    return None


def _passes_by_pragma(name: str, value: str | None) -> str | None:
    if name == "wal_checkpoint":
        return "PRAGMA wal_checkpoint"
    if name == "journal_mode" and value not in {None, "wal"}:
        return f"PRAGMA journal_mode = {value}"
    if name == "locking_mode" and value == "exclusive":
        return "PRAGMA locking_mode = EXCLUSIVE"
    if name == "query_only" and value is not None and not is_on(value):
        # query_only prevents a reader from writing if its file could not be opened read-only. The
        # application's own statement is handled by own_settings.py.
        return f"PRAGMA query_only = {value}"
    return None


@final
class _Aside:
    """The context manager of :meth:`Authorizer.aside`; a class, because each closure enters it."""

    __slots__ = ("_access", "_application", "_authorizer")

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def __enter__(self) -> None:
        authorizer = self._authorizer
        self._access, self._application = authorizer.access, authorizer.application
        authorizer.access, authorizer.application = Access.ALL, None

    def __exit__(self, *_: object) -> None:
        self._authorizer.access, self._authorizer.application = self._access, self._application
