"""A fair semaphore whose permits record their holders.

``asyncio.Semaphore`` and ``asyncio.Queue`` let a newcomer take what was meant for a waiter that
has been woken but has not run yet. Here ownership passes at release, before the waiter is woken
(as in Trio's ``ParkingLot``), and no task can barge in:

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
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import final

from ..mutex import new_lock
from ..stats.lines import LineStatistics
from ..stats.wait_counter import WaitCounter
from ..system.clock import time
from ..system.forks import renew_after_fork
from ..system.loop_state import of_running_loop, others_are_open
from .deadlines import Deadlines
from .permit import Permit, Waiter, pass_on_to_children
from .whereabouts import caller

# A message describes at most this many holders: a pool may have any number of connections.
_MOST_DESCRIBED = 5


@final
class FairSemaphore:
    """A semaphore with ``capacity`` permits that serves waiting tasks in order of arrival.

    Tasks of several event loops may share it. ``clock`` returns monotonic seconds.
    """

    def __init__(self, capacity: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._clock = clock
        self._arrivals = 0
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Reset the semaphore: its holders and waiters are tasks of the parent process."""
        self._mutex = new_lock()
        # waiters non-empty ⇒ len(held) == capacity. To iterate over held, copy it with list():
        # tuple() allocates first, which may run the garbage collector, and that releases permits.
        self._held: set[Permit] = set()
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._returned: deque[Permit] = deque()  # on their way from held to the next waiter
        self._for_moments: list[Permit] = []  # reusable, one after the other
        self.waits = WaitCounter()  # protected by the mutex, too

    def __repr__(self) -> str:
        capacity = "" if self._capacity == sys.maxsize else f" of {self._capacity}"
        return f"<FairSemaphore {len(self._held)}{capacity} held, {self.waiting} waiting>"

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def held(self) -> int:
        """The number of permits that are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """The number of tasks waiting in line."""
        return len(self._waiters)

    @property
    def arrivals(self) -> int:
        """The number of waiters that have ever joined the line."""
        return self._arrivals

    @property
    def permits(self) -> list[Permit]:
        """The permits that are held, the longest held first."""
        with self._mutex:
            held = list(self._held)
        self._pass_on_returned()
        return sorted(held, key=lambda permit: permit.since)

    def locked(self) -> bool:
        """Return whether all permits are held."""
        return len(self._held) >= self._capacity

    def statistics(self) -> LineStatistics:
        """Return the holders of the permits, the number of waiting tasks, and the counters."""
        now = self._clock()
        return LineStatistics(
            capacity=None if self._capacity == sys.maxsize else self._capacity,
            holders=tuple(permit.snapshot(now) for permit in self.permits),
            waiting=self.waiting,
            waits=self.waits.snapshot(),
        )

    def describe_holders(self) -> str:
        """Return a text for messages: the holders, how long they have held, where they are now.

        Of many, the first few that have held longest are described, and the others counted.
        """
        now, held = self._clock(), self.permits
        texts = [permit.describe(now) for permit in held[:_MOST_DESCRIBED]]
        if (others := len(held) - len(texts)) > 0:
            texts.append(f"{others} more")
        return "; ".join(texts) or "no task"

    def in_the_way_of(self, waiter: Waiter) -> str | None:
        """Describe the holders as :meth:`describe_holders` does; None if ``waiter`` is served."""
        return None if waiter.permit is not None else self.describe_holders()

    def held_by(self, task: asyncio.Task[object] | None) -> bool:
        """Return whether ``task`` would wait for itself: it holds a permit that it still uses."""
        if task is None:
            return False
        held = [permit for permit in list(self._held) if permit.task is task]
        return any(not permit.coming_back for permit in held)

    def is_in_use_by(self, task: asyncio.Task[object] | None) -> bool:
        """Return what :meth:`held_by` does, after recovering connections that the task has lost.

        The garbage collector finds those, as in :meth:`collect_abandoned`.
        """
        if not self.held_by(task):
            return False
        for permit in list(self._held):
            if not permit.sought and permit.task is task:
                _collect(permit)
        return self.held_by(task)

    def acquire_nowait(self) -> Permit | None:
        """Return a permit if one is free, else None. Never overtakes a waiter.

        For use inside an event loop. The caller sets ``asked_at``, the source line of the request.
        """
        task, permit = asyncio.current_task(), None
        try:
            with self._mutex:
                if len(self._held) < self._capacity:
                    assert not self._waiters
                    permit = Permit(task, self._clock(), self)
                    self._held.add(permit)
                    self.waits.at_once += 1
            if self._returned:
                self._pass_on_returned()
            if permit is not None:
                pass_on_to_children(permit)
        except BaseException:  # the stack is exhausted, or a signal handler raised
            if permit is not None:
                self.release(permit)
            raise
        return permit

    def acquire_at_once(self) -> Permit | None:
        """Return a permit if one is free, with ``asked_at`` set to the calling line; else None."""
        permit = self.acquire_nowait()
        if permit is not None:
            try:
                permit.asked_at = caller()
            except BaseException:
                self.release(permit)
                raise
        return permit

    def acquire_for_a_moment(self, *, counts: bool = True) -> Permit | None:
        """Return a permit if one is free, for work that ends before its task awaits anything.

        No task of this event loop can find it taken, so the object is reused, and refers to no
        task. Release it with :meth:`release_after_a_moment`, in the same thread. The statistics
        include it if ``counts`` is true.
        """
        try:
            permit = self._for_moments.pop()
        except IndexError:
            permit = Permit(None, 0.0, self)
        try:
            with self._mutex:
                if len(self._held) < self._capacity:
                    permit.since = self._clock()
                    self._held.add(permit)
                    self.waits.at_once += counts
                    return permit
        except BaseException:
            self.release(permit)
            raise
        if self._returned:
            self._pass_on_returned()
        self._for_moments.append(permit)
        return None

    def release_after_a_moment(self, permit: Permit) -> None:
        """Release such a permit, to the first in line if a task of another loop has joined it."""
        with self._mutex:
            self._held.discard(permit)
            if self._waiters:
                self._pass_on()
        if self._returned:
            self._pass_on_returned()
        self._for_moments.append(permit)

    async def acquire(self, timeout: float | None, owner: object = None) -> Permit | None:
        """Wait in line for a permit, at most ``timeout`` seconds (None: no limit).

        Returns None on timeout. A cancellation leaves no place in line and no permit taken, even
        if it arrives between a release and the wake-up. ``owner`` is the object on whose behalf
        the task waits: see :meth:`send_away`.
        """
        if permit := self.acquire_at_once():
            return permit
        waiter = self.stand_in_line(owner)
        try:
            return await self.wait(waiter, timeout)
        except BaseException:  # wait() may not have started
            self.leave_line(waiter)
            raise

    def stand_in_line(self, owner: object) -> Waiter:
        """Join the line; the caller must :meth:`wait` in the place returned, or leave the line."""
        loop = asyncio.get_running_loop()
        self.recall_stranded(loop)
        self.collect_abandoned()
        return self._join(loop, owner)

    def leave_line(self, waiter: Waiter) -> None:
        """Give up the place in line, and the permit if the waiter has been handed one."""
        self._leave(waiter)
        if waiter.permit is not None:
            self.release(waiter.permit)

    async def wait(self, waiter: Waiter, timeout: float | None) -> Permit | None:
        """Wait in a place in line; otherwise like :meth:`acquire`."""
        if waiter.permit is None:
            deadlines, looks = of_running_loop(Deadlines), False
            try:
                if timeout is not None:
                    deadlines.add(timeout, waiter.wake)
                # Only tasks that arrived earlier can be in the way, so later loops do not matter.
                if looks := others_are_open(waiter.loop):
                    waiter.begin_looking()
                await waiter.future
            except BaseException as error:
                self.leave_line(waiter)  # handed over, then cancelled: pass it on
                self._count(waiter, error)
                raise
            finally:
                if timeout is not None:
                    deadlines.discard(timeout, waiter.wake)
                if looks:
                    waiter.stop_looking()
        permit = waiter.permit
        if permit is None:
            self._leave(waiter)
            permit = waiter.permit  # may have been handed over in the meantime
        try:
            self._count(waiter)
            if waiter.error is not None:
                raise waiter.take_error()
            if permit is not None:
                permit.asked_at = caller()
                pass_on_to_children(permit)
        except BaseException:
            if permit is not None:
                self.release(permit)
            raise
        return permit

    def release(self, permit: Permit) -> None:
        """Release ``permit``, from any thread; the next live waiter owns one before it wakes.

        Safe to call anywhere, even by the garbage collector in the middle of any other method
        here: it never waits for the mutex. The thread that holds the mutex passes the permit on.
        """
        try:
            self._returned.append(permit)
            self._pass_on_returned()
        except BaseException:  # raised by a signal handler; the next call here may be much later
            self._returned.append(permit)
            self._pass_on_returned()
            raise

    def send_away(self, owner: object, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in the tasks that wait on behalf of ``owner``."""
        with self._mutex:
            leaving = [waiter for waiter in self._waiters if waiter.owner is owner]
            for waiter in leaving:
                del self._waiters[waiter]
        self._pass_on_returned()
        for waiter in leaving:
            waiter.send_away(error())

    # -- under the mutex, all of it short -------------------------------------------------------

    def _join(self, loop: asyncio.AbstractEventLoop, owner: object) -> Waiter:
        waiter = Waiter(self, loop, owner, self._clock())
        try:
            with self._mutex:
                self._arrivals = waiter.number = self._arrivals + 1
                if len(self._held) < self._capacity:  # released by another thread meanwhile
                    waiter.permit = Permit(waiter.task, self._clock(), self)
                    self._held.add(waiter.permit)
                else:
                    self._waiters[waiter] = None
            if self._returned:
                self._pass_on_returned()
        except BaseException:
            self.leave_line(waiter)
            raise
        return waiter

    def _leave(self, waiter: Waiter) -> None:
        # Afterwards no permit is handed to the waiter; an earlier one stays in waiter.permit. A
        # waiter in line is not garbage, so the garbage collector, which may call this in a thread
        # that holds the mutex, never waits for the mutex here.
        if waiter in self._waiters:
            with self._mutex:
                self._waiters.pop(waiter, None)
        self._pass_on_returned()

    def _count(self, waiter: Waiter, ended_by: BaseException | None = None) -> None:
        if isinstance(ended_by, GeneratorExit):
            return  # the loop is gone, and the garbage collector is calling this
        seconds, cancelled = self._clock() - waiter.since, ended_by is not None
        left = waiter.permit is None and not cancelled
        with self._mutex:
            self.waits.ended(
                seconds,
                cancelled=cancelled,
                sent_away=left and waiter.error is not None,
                timed_out=left and waiter.error is None,
            )
        self._pass_on_returned()

    def _pass_on_returned(self) -> None:
        """Pass on the permits that were released. Must be called after each use of the mutex."""
        # Signals are handled after a call, including that of acquire(): an error raised by the
        # handler would leave the mutex locked for ever. A step of an iterator is not a call.
        for _ in iter(partial(self._mutex.acquire, False), False):
            try:
                while self._returned:
                    permit = self._returned[0]
                    permit.given_back = True
                    self._held.discard(permit)  # absent if released twice, or before a fork
                    if self._waiters:
                        self._pass_on()
                    self._returned.popleft()  # last: if interrupted before, the next call retries
            finally:
                self._mutex.release()
            if not self._returned:
                break

    def _pass_on(self) -> None:
        while self._waiters and len(self._held) < self._capacity:
            waiter = next(iter(self._waiters))
            successor = Permit(waiter.task, self._clock(), self)
            try:
                self._held.add(successor)
                if not waiter.hand_over(successor):
                    self._held.discard(successor)
                self._waiters.pop(waiter, None)
            except BaseException:  # the waiter stays first in line
                waiter.permit = None
                self._held.discard(successor)
                raise

    # -- permits whose task cannot release them -------------------------------------------------

    def recall_stranded(self, running: asyncio.AbstractEventLoop) -> None:
        """Recall the permits of tasks of closed loops. In ``running``, outside any greenlet."""
        for permit in list(self._held):
            if permit.loop is running or not permit.stranded:
                continue
            if (recall := permit.recall) is None:  # the task never used it
                self.release(permit)
            else:
                recall()

    def collect_abandoned(self) -> None:
        """Run the garbage collector to find connections lost by tasks that have ended.

        The end of a task proves nothing: a fixture or a dependency may open a connection in one
        task for another to use, and leave it idle for any time. A connection is abandoned only if
        it is unreachable, which the garbage collector decides. Sessions are reference cycles, so
        it would find them minutes later; it runs at once, young generations first, and once for
        each permit: a permit that another task uses legitimately costs a single collection.
        """
        for permit in list(self._held):
            if not permit.sought and permit.is_of_ended_task:
                _collect(permit)


def _collect(permit: Permit) -> None:
    """Run the garbage collector until it finds a connection that was lost under ``permit``."""
    permit.sought = True
    for generation in range(3):
        gc.collect(generation)
        if permit.coming_back or permit.given_back:
            return
