"""The connections of an engine that are checked out."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from sqlalchemy.pool import ConnectionPoolEntry

from ...turn.permit import Permit
from .records import Held


@final
class CheckedOut:
    """The connections of an engine that are checked out. ``dispose()`` leaves them as they are.

    So the pool that it puts in the place of another knows them, too, and both give back here.
    ``permits`` are those of connections that are checked out or being opened for it, ``held`` are
    the former. ``refusal()`` is raised in all checkouts, None while they are welcome.
    ``on_last_return()`` is called when nothing is checked out any more.
    """

    def __init__(self, refusal: Callable[[], Exception] | None = None) -> None:
        self.permits: dict[ConnectionPoolEntry, Permit] = {}
        self.held: dict[ConnectionPoolEntry, Held] = {}
        self.refusal = refusal
        self.on_last_return: Callable[[], None] | None = None

    def has_returned(self) -> None:
        """Tell that a connection was given back, or could not be opened."""
        if not self.permits and self.on_last_return is not None:
            self.on_last_return()
