"""The life cycle of an object that is opened and closed."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """The state of a :class:`~.database.SQLiteDatabase`, which moves down this list only."""

    NEW = "new"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"

    @property
    def remedy(self) -> str:
        """The words of a message for a database that must be open and is not."""
        remedies = {
            State.NEW: "is new; use `async with db:` or `await db.open()` first",
            State.CLOSING: "is being closed; make a new SQLiteDatabase",
        }
        return remedies.get(self, "was closed; make a new SQLiteDatabase")
