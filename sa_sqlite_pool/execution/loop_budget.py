"""The loop budget: inline work yields the event loop to other tasks from time to time.

A lap (one iteration of the loop) runs every task that is ready, once. Tasks whose statements run
inline are always ready, so a lap with fifty of them would last fifty times as long as with one, and
every other ready task would wait for all of them. Hence two rules:

* Of the tasks that request a connection, each lap admits as many as fit into half a millisecond, in
  order of arrival; the others wait for the next lap. If the rest of the application takes longer in
  a lap, these tasks may take half as long as that:

      Loop     | First           | Second          | Third           | Others
      lap      | admitted, reads | admitted, reads | asks            | run
      next lap | asks            |                 | admitted, reads | run

* A task that has a connection, and executes one statement after the other without ever waiting,
  lets all other tasks run every half millisecond.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Generator
from contextvars import Context
from dataclasses import dataclass
from typing import Any, final

from ..system.clock import time

# The least work on the loop, in seconds, that a lap admits; one transaction in any case.
LAP_SECONDS = 0.000_5

# Seconds for which a task that has a connection may run before it pauses.
HOLDING_SECONDS = 0.000_5

# The initial estimate of how long such work takes, and the weight of the latest in the mean.
_FIRST_GUESS, _WEIGHT = 0.000_1, 1 / 16


@final
class Pause:
    """An awaitable that takes one lap of the loop, or no time at all."""

    __slots__ = ("long",)

    def __init__(self, long: bool) -> None:
        self.long = long

    def __await__(self) -> Generator[None, None, None]:
        if self.long:
            yield


_LONG, _SHORT = Pause(True), Pause(False)


@dataclass(frozen=True, slots=True)
class LoopBudgetStatistics:
    """``room`` is how many more tasks the current lap admits, ``tasks_waiting`` how many wait.

    ``mean_seconds`` is how long each is expected to work on the loop.
    """

    room: int
    tasks_waiting: int
    mean_seconds: float


@final
class LoopBudget:
    """The time that work on one event loop may take in a lap: a part of the loop's state."""

    def __init__(self) -> None:
        # The context of laps: in a task's own, profilers would count laps as work of that task.
        self._context = Context()
        self._lap_scheduled = False  # _next_lap() will be called
        self._began = 0.0  # when the lap began
        # Admission: the room left, the tasks that wait, the running work and its start, the total
        # time of all work in this lap, and the average time of each.
        self._room = 0
        self._outside: deque[asyncio.Future[None]] = deque()  # non-empty ⇒ no room
        self._work: object = None
        self._works_since = 0.0
        self._worked = 0.0
        self._mean = _FIRST_GUESS
        # Holding: the task that is running, and since when.
        self._task: asyncio.Task[Any] | None = None
        self._since = 0.0

    def statistics(self) -> LoopBudgetStatistics:
        """Return the state of the current lap. This must be called in the loop."""
        waiting = sum(not place.done() for place in self._outside)
        room = self._room if self._lap_scheduled else max(1, round(LAP_SECONDS / self._mean))
        return LoopBudgetStatistics(room, waiting, self._mean)

    # -- admission ------------------------------------------------------------------------------

    def enter_nowait(self) -> bool:
        """Return whether the running task may begin at once; it never overtakes a waiting one."""
        if not self._lap_scheduled:
            self._begin_lap(LAP_SECONDS)
        if self._room <= 0:
            return False
        self._room -= 1
        return True

    async def enter(self) -> float:
        """Wait until a lap has room; return how many seconds that took, rounded down to a tenth.

        Tasks with similar waits can share a timer. A cancellation leaves nothing behind.
        """
        if self.enter_nowait():  # it may begin in a later lap than the one that had no room
            return 0.0
        began = time.perf_counter()
        place = asyncio.get_running_loop().create_future()
        self._outside.append(place)
        await place
        return math.floor(10 * (time.perf_counter() - began)) / 10

    def begin_work(self, work: object) -> None:
        """Note that an admitted task has a connection; ``work`` is any object to identify it."""
        if not self._lap_scheduled:
            # It may have waited elsewhere: the end of this lap must be noticed.
            self._begin_lap(LAP_SECONDS)
        self._work, self._works_since = work, time.perf_counter()

    def end_work(self, work: object) -> None:
        """Note that the task has finished, in this lap or later. Any thread may call this."""
        if work is self._work:
            seconds = time.perf_counter() - self._works_since
            self._worked += seconds
            self._mean += _WEIGHT * (seconds - self._mean)

    def note_work(self, seconds: float) -> None:
        """Note that a task has worked for ``seconds`` since its admission, without awaiting."""
        self._worked += seconds
        self._mean += _WEIGHT * (seconds - self._mean)

    # -- holding --------------------------------------------------------------------------------

    def pause(self, task: asyncio.Task[Any] | None) -> Pause:
        """Return what ``task``, which has a connection, must await before work on the loop."""
        now = time.perf_counter()
        if task is self._task:
            return _SHORT if now - self._since < HOLDING_SECONDS else _LONG
        self._task, self._since = task, now
        if not self._lap_scheduled:
            self._begin_lap(LAP_SECONDS)
        return _SHORT

    # -- laps -----------------------------------------------------------------------------------

    def _begin_lap(self, seconds: float) -> None:
        # First, since it may fail: if the stack is nearly exhausted, or in a signal handler.
        asyncio.get_running_loop().call_soon(self._next_lap, context=self._context)
        self._began, self._worked = time.perf_counter(), 0.0
        self._room = max(1, round(seconds / self._mean))
        self._lap_scheduled = True

    def _next_lap(self) -> None:
        self._lap_scheduled, self._task, self._work = False, None, None
        if not self._outside:
            return
        others = time.perf_counter() - self._began - self._worked
        self._begin_lap(max(LAP_SECONDS, others / 2))
        while self._outside and self._room > 0:
            place = self._outside.popleft()
            if not place.done():  # it was cancelled
                place.set_result(None)
                self._room -= 1
