"""Prevent a function that uses the raw SQLite connection from ending the transaction.

``commit()``, ``COMMIT`` as text, ``with connection:``, and ``executescript()``, which commits
first, bypass SQLAlchemy. But SQLite calls its authorizer when it compiles each of them:
``SQLITE_TRANSACTION`` in https://www.sqlite.org/c3ref/c_alter_table.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import final

from .authorizer import Authorizer
from .shared_hooks import ask_instead, install_authorizer


@final
class EndWatch:
    """An authorizer that denies BEGIN, COMMIT and ROLLBACK, and passes the rest to ``authorizer``.

    :param on_denial: called with the name of the denied operation
    """

    __slots__ = ("_authorizer", "_on_denial", "_sqlite")

    def __init__(
        self, sqlite: sqlite3.Connection, authorizer: Authorizer, on_denial: Callable[[str], None]
    ) -> None:
        self._sqlite = sqlite
        self._authorizer = authorizer
        self._on_denial = on_denial

    def begin(self) -> None:
        """Install this authorizer; it also applies to statements that are compiled already.

        SQLite would not call it again for the statements in Python's cache. But a new authorizer
        expires them all (``sqlite3_set_authorizer()`` in SQLite's auth.c).
        """
        ask_instead(self._sqlite, self)

    def end(self) -> None:
        """Reinstall the original authorizer, which causes COMMIT to be recompiled, too."""
        install_authorizer(self._sqlite, self._authorizer)

    def __call__(
        self,
        action: int,
        first: str | None,
        second: str | None,
        database: str | None,
        source: str | None,
    ) -> int:
        if action == sqlite3.SQLITE_TRANSACTION:
            self._on_denial(first or "")
            return sqlite3.SQLITE_DENY
        return self._authorizer(action, first, second, database, source)
