"""The timeouts of waiting tasks: one timer in each event loop for all timeouts of equal length.

Equal timeouts expire in the order in which they began, so one timer for the earliest is enough. A
timer for each task would account for most of the cost of waiting in a line that moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import final

from ..system.clock import Timer, call_at, loop_time

Wake = Callable[[], None]


@final
class Deadlines:
    """The deadlines of one event loop, whatever its tasks wait for; part of the loop's state."""

    def __init__(self) -> None:
        self._queues: dict[float, _Queue] = {}

    def add(self, seconds: float, wake: Wake) -> None:
        """Call ``wake()`` after ``seconds``."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(seconds)
        queue.add(wake)

    def discard(self, seconds: float, wake: Wake) -> None:
        """Cancel a deadline that is no longer needed. Does nothing if ``wake()`` was called."""
        queue = self._queues.get(seconds)
        if queue is not None and queue.discard(wake):
            del self._queues[seconds]


@final
class _Queue:
    """The deadlines of all timeouts of one length."""

    __slots__ = ("_deadlines", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[Wake, float] = {}  # the first is due first
        self._timer: Timer | None = None

    def add(self, wake: Wake) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._deadlines[wake] = loop_time(loop) + self._seconds
        if self._timer is None:
            self._timer = call_at(loop, deadline, self._time_passed, context=Context())

    def discard(self, wake: Wake) -> bool:
        """Remove the deadline of ``wake``; return whether none is left."""
        self._deadlines.pop(wake, None)
        if self._deadlines:
            return False
        if self._timer is not None:
            self._timer.cancel()
        return True

    def _time_passed(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop_time(loop)
        for wake, deadline in list(self._deadlines.items()):
            if deadline > now:
                break
            del self._deadlines[wake]
            wake()  # may add a deadline for itself again
        first = next(iter(self._deadlines.values()), None)
        self._timer = None
        if first is not None:
            self._timer = call_at(loop, first, self._time_passed, context=Context())
