"""Foreign keys that SQLite checks only at COMMIT."""

from __future__ import annotations

import sqlite3
import weakref
from typing import final

from ..execution.connection_thread import ConnectionThread
from ..sqlite.inspection import ask, rows

# In upper case, since PRAGMA case_sensitive_like may be on.
_ANY = "SELECT 1 FROM sqlite_master WHERE upper(sql) LIKE '%INITIALLY%DEFERRED%' LIMIT 1"


@final
class DeferredKeys:
    """Whether a database has deferred foreign keys; remembered until its schema changes.

    Ask right after BEGIN: a schema version that is rolled back is reused for another schema.
    Another connection may have a different file, whose schema may have the same version.
    """

    __slots__ = ("_any", "_known_to", "_version")

    def __init__(self) -> None:
        self._known_to: weakref.ref[ConnectionThread] | None = None
        self._version = -1
        self._any = False

    def are_in(self, sqlite: sqlite3.Connection, worker: ConnectionThread) -> bool:
        """Return whether there are any, as seen by ``sqlite``, the connection of ``worker``."""
        version = sqlite.execute("PRAGMA schema_version").fetchone()[0]
        known = self._known_to is not None and self._known_to() is worker
        if not known or version != self._version:
            found = rows(sqlite, _ANY)
            self._version, self._any = version, bool(found)
            self._known_to = weakref.ref(worker)
        return self._any


def defers_now(sqlite: sqlite3.Connection) -> bool:
    """Return whether keys are deferred, after a function has used SQLite's own connection."""
    return bool(ask(sqlite, "defer_foreign_keys")) or bool(rows(sqlite, _ANY))
