"""A fair semaphore whose permits know their holders.

``asyncio.Semaphore`` and ``asyncio.Queue`` let a newcomer take what was meant for a waiter that
is already woken but has not run yet. Here ownership passes at release, before anybody is woken
(Trio's ``ParkingLot`` does the same), so that nobody can step in between:

    Holder                         | Waiter                 | Newcomer
    release(): permit → Waiter     | (asleep)               |
                                   | (woken, not run yet)   | take_nowait() → None, joins line
                                   | runs, owns the permit  |

One semaphore serves the tasks of any number of event loops and threads: its state changes under
a mutex held for a few instructions, and a waiter is woken through its own loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import final

from .whereabouts import task_name, whereabouts


@final
class Permit:
    """The right to go on, and who has it.

    ``last_sql`` is kept up to date by the connection that works under the permit.
    """

    __slots__ = ("last_sql", "since", "task")

    def __init__(self, task: asyncio.Task[object] | None, since: float) -> None:
        self.task = task
        self.since = since
        self.last_sql: str | None = None

    def describe(self, now: float) -> str:
        """``12.3 s by task 'import-42' (now at jobs.py:88, last SQL: UPDATE …)``"""
        details = []
        if place := whereabouts(self.task):
            details.append(f"now at {place}")
        if self.last_sql is not None:
            details.append(f"last SQL: {shorten(self.last_sql)}")
        suffix = f" ({', '.join(details)})" if details else ""
        return f"{now - self.since:.1f} s by {task_name(self.task)}{suffix}"


@final
class Waiter:
    """One task's place in line."""

    __slots__ = ("future", "loop", "permit", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task = asyncio.current_task(loop)
        self.future: asyncio.Future[None] = loop.create_future()
        self.permit: Permit | None = None

    def wake(self) -> None:
        """Let the waiting task look at ``permit``. Runs in the waiter's own loop."""
        if not self.future.done():
            self.future.set_result(None)

    def hand_over(self, permit: Permit) -> bool:
        """Take ownership of ``permit``; False if the waiter's loop is closed."""
        self.permit = permit
        if _running_loop() is self.loop:
            self.wake()
            return True
        try:
            self.loop.call_soon_threadsafe(self.wake)
        except RuntimeError:  # the loop is closed: its tasks will never run again
            self.permit = None
            return False
        return True


@final
class FairSemaphore:
    """At most ``capacity`` permits; those who wait are served in order of arrival.

    Tasks of several event loops may share it. ``clock`` gives monotonic seconds.
    """

    def __init__(self, capacity: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._clock = clock
        self._mutex = threading.Lock()
        # waiters non-empty ⇒ len(held) == capacity
        self._held: set[Permit] = set()
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def waiting(self) -> int:
        """How many tasks stand in line."""
        return len(self._waiters)

    @property
    def permits(self) -> list[Permit]:
        """The permits given out, longest held first."""
        with self._mutex:
            held = list(self._held)
        return sorted(held, key=lambda permit: permit.since)

    @property
    def longest_held_seconds(self) -> float | None:
        """The age of the oldest permit; None if none is given out."""
        oldest = next(iter(self.permits), None)
        return None if oldest is None else self._clock() - oldest.since

    def describe_holders(self) -> str:
        """Who holds the permits, for how long and where they are now; for error messages."""
        now = self._clock()
        return "; ".join(permit.describe(now) for permit in self.permits) or "nobody"

    def held_by(self, task: asyncio.Task[object] | None) -> bool:
        with self._mutex:
            return task is not None and any(permit.task is task for permit in self._held)

    def take_nowait(self) -> Permit | None:
        """A permit if one is free; never overtakes a waiter. For use inside an event loop."""
        task = asyncio.current_task()
        with self._mutex:
            if len(self._held) >= self._capacity:
                return None
            assert not self._waiters
            return self._give(task)

    async def acquire(self, timeout: float | None) -> Permit | None:
        """Wait in line for a permit, at most ``timeout`` seconds (None: no limit).

        Returns None when the time passed. A cancellation leaves no place in line and no permit
        taken, also when it arrives between a release and the wake-up.
        """
        if permit := self.take_nowait():
            return permit
        waiter = self._join()
        if waiter.permit is None:
            await self._sleep(waiter, timeout)
        if waiter.permit is None:
            self._leave(waiter)
        return waiter.permit

    def release(self, permit: Permit) -> None:
        """Give ``permit`` back, from any thread; the next live waiter owns one before it wakes."""
        with self._mutex:
            self._held.remove(permit)
            while self._waiters and len(self._held) < self._capacity:
                waiter, _ = self._waiters.popitem(last=False)
                successor = self._give(waiter.task)
                if not waiter.hand_over(successor):
                    self._held.remove(successor)

    def _give(self, task: asyncio.Task[object] | None) -> Permit:
        permit = Permit(task, self._clock())
        self._held.add(permit)
        return permit

    def _join(self) -> Waiter:
        waiter = Waiter(asyncio.get_running_loop())
        with self._mutex:
            if len(self._held) < self._capacity:  # released by another thread meanwhile
                waiter.permit = self._give(waiter.task)
            else:
                self._waiters[waiter] = None
        return waiter

    async def _sleep(self, waiter: Waiter, timeout: float | None) -> None:
        timer = None if timeout is None else waiter.loop.call_later(timeout, waiter.wake)
        try:
            await waiter.future
        except BaseException:
            self._leave(waiter)
            if waiter.permit is not None:  # handed over, then cancelled: pass it on
                self.release(waiter.permit)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _leave(self, waiter: Waiter) -> None:
        # After this nobody hands a permit to the waiter; one given before stays in waiter.permit.
        with self._mutex:
            self._waiters.pop(waiter, None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_SHOWN_CHARACTERS = 120


def shorten(sql: str) -> str:
    """``sql`` on one line, cut where it is long."""
    line = " ".join(sql[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
