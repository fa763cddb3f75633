"""How long those who wait go on waiting: one timer for all that wait equally long.

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
    """Of the tasks of any number of event loops. All methods run in the loop of who waits."""

    def __init__(self) -> None:
        self._queues: dict[tuple[asyncio.AbstractEventLoop, float], _Queue] = {}

    def add(self, loop: asyncio.AbstractEventLoop, seconds: float, wake: Wake) -> None:
        """Have ``wake()`` called after so many seconds."""
        queue = self._queues.get((loop, seconds))
        if queue is None:
            queue = self._queues[loop, seconds] = _Queue(loop, seconds)
        queue.add(wake)

    def discard(self, loop: asyncio.AbstractEventLoop, seconds: float, wake: Wake) -> None:
        """Nobody waits for it any more. No harm if it has been called."""
        queue = self._queues.get((loop, seconds))
        if queue is not None and queue.discard(wake):
            del self._queues[loop, seconds]


@final
class _Queue:
    """Of one loop, and one length of time."""

    __slots__ = ("_deadlines", "_loop", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._deadlines: dict[Wake, float] = {}  # the first is due first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wake: Wake) -> None:
        deadline = self._deadlines[wake] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._time_passed)

    def discard(self, wake: Wake) -> bool:
        """Whether nobody is left."""
        self._deadlines.pop(wake, None)
        if self._deadlines:
            return False
        if self._timer is not None:
            self._timer.cancel()
        return True

    def _time_passed(self) -> None:
        now = self._loop.time()
        for wake, deadline in list(self._deadlines.items()):
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._time_passed)
                return
            del self._deadlines[wake]
            wake()
        self._timer = None
