"""A fair semaphore whose permits know their holders.

``asyncio.Semaphore`` and ``asyncio.Queue`` let a newcomer take what was meant for a waiter that
is already woken but has not run yet. Here ownership passes at release, before anybody is woken
(Trio's ``ParkingLot`` does the same), so that nobody can step in between:

    Holder                         | Waiter                 | Newcomer
    release(): permit → Waiter     | (asleep)               |
                                   | (woken, not run yet)   | acquire_nowait() → None, joins line
                                   | runs, owns the permit  |

One semaphore serves the tasks of any number of event loops and threads: its state changes under
a mutex held for a few instructions, and a waiter is woken through its own loop.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from ..system.forks import renew_after_fork
from ..system.loop_state import call_unless_closed, of_running_loop
from .deadlines import Deadlines
from .permit import Permit, pass_on_to_children
from .whereabouts import caller


@dataclass(frozen=True, slots=True)
class SemaphoreStatistics:
    """``holders`` describe what has some of the ``capacity`` permits, the oldest first.

    ``seconds_held`` is the age of that, None if none is given out. ``waiting`` tasks stand in line.
    """

    capacity: int
    holders: tuple[str, ...]
    seconds_held: float | None
    waiting: int


@final
class Waiter:
    """One task's place in line. It is answered once: with a permit, or with an error.

    ``number`` counts those that ever stood there, this one included.
    """

    __slots__ = ("error", "future", "loop", "number", "owner", "permit", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: object) -> None:
        self.loop = loop
        self.task = asyncio.current_task(loop)
        self.owner = owner
        self.number = 0
        self.future: asyncio.Future[None] = loop.create_future()
        self.permit: Permit | None = None
        self.error: Exception | None = None

    def wake(self) -> None:
        """Let the waiting task look at its answer. Runs in the waiter's own loop."""
        if not self.future.done():
            self.future.set_result(None)

    def hand_over(self, permit: Permit) -> bool:
        """Take ownership of ``permit``; False if the waiter's loop is closed."""
        self.permit = permit
        if self._notify():
            return True
        self.permit = None
        return False

    def send_away(self, error: Exception) -> None:
        self.error = error
        self._notify()

    def _notify(self) -> bool:
        if _running_loop() is self.loop:
            self.wake()
            return True
        return call_unless_closed(self.loop, self.wake)


# All of the process. Weak references in a plain set, which is copied in one step:
# another thread may make one meanwhile.
_lines: set[weakref.ref[FairSemaphore]] = set()


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
        self._arrivals = 0
        self.renew_in_child()
        renew_after_fork(self)
        _lines.add(weakref.ref(self, _lines.discard))

    def renew_in_child(self) -> None:
        """Nobody in a child process holds anything, or waits: those are the parent's tasks."""
        self._mutex = threading.Lock()
        # waiters non-empty ⇒ len(held) == capacity
        self._held: set[Permit] = set()
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._returned: deque[Permit] = deque()  # on their way from held to the next in line
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None  # the last who was served
        self._several_loops = False

    def __repr__(self) -> str:
        capacity = "" if self._capacity == sys.maxsize else f" of {self._capacity}"
        return f"<FairSemaphore {len(self._held)}{capacity} held, {self.waiting} waiting>"

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def waiting(self) -> int:
        """How many tasks stand in line."""
        return len(self._waiters)

    @property
    def arrivals(self) -> int:
        """How many have ever stood in line."""
        return self._arrivals

    @property
    def permits(self) -> list[Permit]:
        """The permits given out, longest held first."""
        with self._mutex:
            held = list(self._held)
        self._settle()
        return sorted(held, key=lambda permit: permit.since)

    def locked(self) -> bool:
        """Return whether all permits are given out."""
        return len(self._held) >= self._capacity

    def statistics(self) -> SemaphoreStatistics:
        """Return where the permits are, and how many tasks wait."""
        held = self.permits
        holders = tuple(permit.describe_holder() for permit in held)
        seconds = self._clock() - held[0].since if held else None
        return SemaphoreStatistics(self._capacity, holders, seconds, self.waiting)

    def describe_holders(self) -> str:
        """Who holds the permits, for how long and where they are now; for error messages."""
        now = self._clock()
        return "; ".join(permit.describe(now) for permit in self.permits) or "nobody"

    def held_by(self, task: asyncio.Task[object] | None) -> bool:
        """Whether ``task`` would wait for itself."""
        if task is None:
            return False
        held = [permit for permit in tuple(self._held) if permit.task is task]
        return any(not permit.coming_back for permit in held)

    def acquire_nowait(self) -> Permit | None:
        """A permit if one is free; never overtakes a waiter. For use inside an event loop.

        Whoever calls this knows better who asks, and says so in ``asked_at``.
        """
        task, permit = asyncio.current_task(), None
        with self._mutex:
            if len(self._held) < self._capacity:
                assert not self._waiters
                permit = self._give(task)
        if self._returned:
            self._settle()
        if permit is not None:
            pass_on_to_children(permit)
        return permit

    async def acquire(self, timeout: float | None, owner: object = None) -> Permit | None:
        """Wait in line for a permit, at most ``timeout`` seconds (None: no limit).

        Returns None when the time passed. A cancellation leaves no place in line and no permit
        taken, also when it arrives between a release and the wake-up. ``owner`` is for whom the
        task waits: see :meth:`send_away`.
        """
        if permit := self.acquire_nowait():
            permit.asked_at = caller()
            return permit
        return await self.wait(self.stand_in_line(owner), timeout)

    def stand_in_line(self, owner: object) -> Waiter:
        """A place in line, now; whoever does not :meth:`wait` there must :meth:`leave_line`."""
        loop = asyncio.get_running_loop()
        self._recall_stranded(loop)
        self._collect_abandoned()
        return self._join(loop, owner)

    def leave_line(self, waiter: Waiter) -> None:
        """Give up the place, and the permit that has been handed to it."""
        self._leave(waiter)
        if waiter.permit is not None:
            self.release(waiter.permit)

    async def wait(self, waiter: Waiter, timeout: float | None) -> Permit | None:
        """Wait at a place in line; in everything else as :meth:`acquire`."""
        if waiter.permit is None:
            deadlines = of_running_loop(Deadlines)
            if timeout is not None:
                deadlines.add(timeout, waiter.wake)
            try:
                await waiter.future
            except BaseException:
                self.leave_line(waiter)  # handed over, then cancelled: pass it on
                raise
            finally:
                if timeout is not None:
                    deadlines.discard(timeout, waiter.wake)
        if waiter.permit is None:
            self._leave(waiter)
        if waiter.error is not None:
            raise waiter.error
        if (permit := waiter.permit) is not None:
            permit.asked_at = caller()
            pass_on_to_children(permit)
        return permit

    def release(self, permit: Permit) -> None:
        """Give ``permit`` back, from any thread; the next live waiter owns one before it wakes.

        May be called anywhere, also by the garbage collector in the middle of any other method
        here: it never waits for the mutex. Whoever has the mutex settles what came meanwhile.
        """
        self._returned.append(permit)
        self._settle()

    def send_away(self, owner: object, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in the tasks that wait for ``owner``."""
        with self._mutex:
            leaving = [waiter for waiter in self._waiters if waiter.owner is owner]
            for waiter in leaving:
                del self._waiters[waiter]
        self._settle()
        for waiter in leaving:
            waiter.send_away(error())

    # -- under the mutex, all of it short -------------------------------------------------------

    def _give(self, task: asyncio.Task[object] | None) -> Permit:
        permit = Permit(task, self._clock())
        loop = permit.loop
        if loop is not None and (self._loop is None or self._loop() is not loop):
            self._several_loops = self._loop is not None
            self._loop = weakref.ref(loop)
        self._held.add(permit)
        return permit

    def _join(self, loop: asyncio.AbstractEventLoop, owner: object) -> Waiter:
        waiter = Waiter(loop, owner)
        with self._mutex:
            self._arrivals = waiter.number = self._arrivals + 1
            if len(self._held) < self._capacity:  # released by another thread meanwhile
                waiter.permit = self._give(waiter.task)
            else:
                self._waiters[waiter] = None
        if self._returned:
            self._settle()
        return waiter

    def _leave(self, waiter: Waiter) -> None:
        # After this nobody hands a permit to the waiter; one given before stays in waiter.permit.
        with self._mutex:
            self._waiters.pop(waiter, None)
        self._settle()

    def _settle(self) -> None:
        """Pass on what was returned. To be called after each use of the mutex."""
        while self._returned and self._mutex.acquire(blocking=False):
            try:
                while self._returned:
                    permit = self._returned.popleft()
                    permit.given_back = True
                    self._held.discard(permit)  # not in it: given back twice, or before a fork
                    if self._waiters:
                        self._pass_on()
            finally:
                self._mutex.release()

    def _pass_on(self) -> None:
        while self._waiters and len(self._held) < self._capacity:
            waiter, _ = self._waiters.popitem(last=False)
            successor = self._give(waiter.task)
            if not waiter.hand_over(successor):
                self._held.remove(successor)

    # -- around it ------------------------------------------------------------------------------

    def _recall_stranded(self, running: asyncio.AbstractEventLoop) -> None:
        if not self._several_loops and self._loop is not None and self._loop() is running:
            return  # nobody else was ever served
        for permit in tuple(self._held):
            if permit.loop is running or not permit.stranded:
                continue
            if permit.recall is None:  # its task never came to use it
                self.release(permit)
            else:
                permit.recall()

    def _collect_abandoned(self) -> None:
        """Have the garbage collector find what a task that has ended has lost.

        A task that has ended proves nothing: a fixture or a dependency may open a connection in one
        task for another to use, and be idle with it for as long as it likes. What proves that a
        connection was abandoned is that nothing leads to it any more, and that is the garbage
        collector's to say. Sessions are circles of references, so it would find them minutes
        later; it is asked at once, the young first, and once for each permit, so that a permit
        that was passed on rightly costs one collection and no more.
        """
        for permit in tuple(self._held):
            task = permit.task
            if task is None or not task.done():
                continue
            _forget(task)
            del task
            for generation in range(3):
                gc.collect(generation)
                if permit.coming_back or permit.given_back:
                    break


def _forget(task: asyncio.Task[object]) -> None:
    """Let all permits go of a task that has ended; a connection may be had under two."""
    for reference in tuple(_lines):
        line = reference()
        for permit in () if line is None else tuple(line._held):
            if permit.task is task:
                permit.forget_ended_task()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
