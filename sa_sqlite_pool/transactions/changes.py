"""What a transaction has changed, by SQLite's own counts."""

from __future__ import annotations

import sqlite3
from typing import final

from ..sqlite.authorizer import Authorizer


@final
class Changes:
    """What has changed since the transaction of one connection began, and since the last one ended.

    ``total_changes`` counts rows, and the authorizer counts DDL. So this includes what functions of
    the application have executed, and what was done on the raw connection. ``as_begun`` are the
    counts at the begin, None if there is no transaction, or its begin was not noted.
    """

    __slots__ = ("_authorizer", "_schema_at_end", "as_begun")

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self.as_begun: tuple[int, int] | None = None
        self._schema_at_end = authorizer.schema_changes

    def begin(self, connection: sqlite3.Connection) -> None:
        """Note the counts at the begin of a transaction. Runs in the thread."""
        self.as_begun = connection.total_changes, self._authorizer.schema_changes

    def nothing(self, connection: sqlite3.Connection) -> bool:
        """Return whether nothing has changed since its begin, which was noted."""
        return self.as_begun == (connection.total_changes, self._authorizer.schema_changes)

    def rows(self, connection: sqlite3.Connection) -> bool:
        """Return whether rows have changed since its begin, as far as that was noted."""
        return self.as_begun is not None and self.as_begun[0] != connection.total_changes

    @property
    def schema(self) -> bool:
        """True if DDL was compiled since :meth:`settle_schema`."""
        return self._schema_at_end != self._authorizer.schema_changes

    def settle_schema(self) -> None:
        """Note that what has become of DDL so far is known."""
        self._schema_at_end = self._authorizer.schema_changes
