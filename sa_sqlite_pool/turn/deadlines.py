"""How long the tasks of an event loop wait: one timer for all that wait equally long.

They come to their deadlines in the order in which they came, so the timer is for the first of them.
A timer each would be most of what it costs to stand in a line that moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

Wake = Callable[[], None]


@final
class Deadlines:
    """The deadlines of one event loop, whatever its tasks wait for: a part of the loop's state."""

    def __init__(self) -> None:
        self._queues: dict[float, _Queue] = {}

    def add(self, seconds: float, wake: Wake) -> None:
        """Have ``wake()`` called after so many seconds."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(seconds)
        queue.add(wake)

    def discard(self, seconds: float, wake: Wake) -> None:
        """Forget it: nothing waits for it any more. No harm if it has been called."""
        queue = self._queues.get(seconds)
        if queue is not None and queue.discard(wake):
            del self._queues[seconds]


@final
class _Queue:
    """The deadlines that are equally far away when they are added."""

    __slots__ = ("_deadlines", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[Wake, float] = {}  # the first is due first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wake: Wake) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._deadlines[wake] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._time_passed)

    def discard(self, wake: Wake) -> bool:
        """Return whether none is left."""
        self._deadlines.pop(wake, None)
        if self._deadlines:
            return False
        if self._timer is not None:
            self._timer.cancel()
        return True

    def _time_passed(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for wake, deadline in list(self._deadlines.items()):
            if deadline > now:
                self._timer = loop.call_at(deadline, self._time_passed)
                return
            del self._deadlines[wake]
            wake()
        self._timer = None
