"""A gate that lets statements of several tasks on one connection run one after another.

``asyncio.gather()`` over one connection works with the stock driver, whose thread has a queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import final


@dataclass(frozen=True, slots=True)
class OneAtATimeStatistics:
    """``locked`` is True while a task is inside, ``tasks_waiting`` is how many wait for it."""

    locked: bool
    tasks_waiting: int


@final
class OneAtATime:
    """A gate that one task passes at a time, in order of arrival.

    All tasks belong to one event loop, in which the connection is checked out. ``busy`` may be set
    directly if it is False, and reset if no task is ``waiting``.
    """

    __slots__ = ("busy", "waiting")

    def __init__(self) -> None:
        # waiting non-empty ⇒ busy
        self.busy = False
        self.waiting: deque[asyncio.Future[None]] = deque()

    def statistics(self) -> OneAtATimeStatistics:
        """Return whether a task is inside, and how many wait."""
        waiting = sum(not turn.done() for turn in self.waiting)
        return OneAtATimeStatistics(self.busy, waiting)

    async def enter(self) -> None:
        """Wait until all earlier tasks have left. After a cancellation, the gate is not held."""
        if not self.busy:
            self.busy = True
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave()  # the gate was handed over, and then the task was cancelled
            elif turn in self.waiting:  # unless it has been skipped since
                self.waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Let the next task pass, which holds the gate from this moment on."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done() and not turn.get_loop().is_closed():
                turn.set_result(None)
                return
        self.busy = False
