"""What an engine has lent: its connections that are checked out, and the statements on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from sqlalchemy.pool import ConnectionPoolEntry

from ...turn.permit import Permit
from ..connections.records import Held
from .running import Running


@final
class Lent:
    """The connections of an engine that are checked out. ``dispose()`` leaves them as they are.

    So the pool that it puts in the place of another knows them, too, and both give back here.
    ``permits`` are those of connections that are checked out or being opened for it, ``held`` are
    the former. ``running`` are the statements that run, the innermost of each permit.
    ``refusal()`` is raised in all checkouts, None while they are welcome. ``on_last_return()`` is
    called when nothing is checked out any more.
    """

    def __init__(self, refusal: Callable[[], Exception] | None = None) -> None:
        self.permits: dict[ConnectionPoolEntry, Permit] = {}
        self.held: dict[ConnectionPoolEntry, Held] = {}
        self.running: dict[Permit, Running] = {}
        self.refusal = refusal
        self.on_last_return: Callable[[], None] | None = None

    def has_returned(self) -> None:
        """Tell that a connection was given back, or could not be opened."""
        if not self.permits and self.on_last_return is not None:
            self.on_last_return()

    def begin(self, running: Running) -> None:
        """Start the timers of a statement.

        If another has begun on the connection, and not ended, a listener of it executes this one:
        the timers of the outer one stand still until the inner one has ended.
        """
        permit = running.permit
        if (outer := self.running.get(permit)) is not None:
            outer.pause()
            running.outer = outer
        self.running[permit] = running
        running.begin()

    def end(self, permit: Permit, context: Any) -> Running | None:
        """Stop the timers of the statement of a context, and return it; None if it is not known.

        Statements within it have ended, too: their listeners have raised errors.
        """
        found = self.running.get(permit)
        while found is not None and found.context is not context:
            found = found.outer
        if found is None:
            return None
        ended, outer = self.running.pop(permit), found.outer
        while ended is not found:
            ended.end()
            assert ended.outer is not None
            ended = ended.outer
        found.end()
        if outer is not None:
            self.running[permit] = outer
            outer.begin()
        return found

    def end_all(self, permit: Permit) -> None:
        """Stop the timers of all statements under a permit."""
        running = self.running.pop(permit, None)
        while running is not None:
            running.end()
            running = running.outer
