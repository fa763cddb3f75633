"""Foreign keys that SQLite checks at COMMIT only."""

from __future__ import annotations

import sqlite3
from typing import final

from ..sqlite.inspection import ask, rows

# In upper case, since PRAGMA case_sensitive_like may be on.
_ANY = "SELECT 1 FROM sqlite_master WHERE upper(sql) LIKE '%INITIALLY%DEFERRED%' LIMIT 1"


@final
class DeferredKeys:
    """Whether a database has deferred foreign keys; remembered while its schema is the same.

    Ask right after BEGIN: a schema version that is rolled back is used again for another schema.
    """

    __slots__ = ("_any", "_version")

    def __init__(self) -> None:
        self._version = -1
        self._any = False

    def are_in(self, sqlite: sqlite3.Connection) -> bool:
        version = sqlite.execute("PRAGMA schema_version").fetchone()[0]
        if version != self._version:
            found = rows(sqlite, _ANY)
            self._version, self._any = version, bool(found)
        return self._any


def defers_now(sqlite: sqlite3.Connection) -> bool:
    """Return whether keys are deferred, after a function that had SQLite's own connection."""
    return bool(ask(sqlite, "defer_foreign_keys")) or bool(rows(sqlite, _ANY))
