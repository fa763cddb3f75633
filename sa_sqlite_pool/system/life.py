"""The life of what is opened and closed."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """The life of a :class:`~.database.SQLiteDatabase`; it goes downwards only."""

    NEW = "new"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"

    @property
    def remedy(self) -> str:
        """What to do, where it must be open and is not; for messages."""
        remedies = {
            State.NEW: "is new; use `async with db:` or `await db.open()` first",
            State.CLOSING: "is being closed; make a new SQLiteDatabase",
        }
        return remedies.get(self, "was closed; make a new SQLiteDatabase")
