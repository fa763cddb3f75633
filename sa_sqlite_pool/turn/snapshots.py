"""Who reads an old state of a database file, and the gap in which nobody does.

A log can begin anew only at a moment when no read transaction uses it. Where readers overlap all
the time, that moment never comes by itself, so it is made: new read transactions wait while the
running ones end.

    Running reader      | New reader            | Whoever makes the gap
                        |                       | gap begins
                        | begin(): waits        | waits until nobody is left
    end(): was the last |                       | (wakes) truncates the log
                        |                       | gap ends
                        | (wakes) goes on       |

Readers of any number of event loops and threads share one object. There is no mutex, since
``end()`` may be called by the garbage collector in the middle of any method here. Instead, a reader
first enters itself and then looks for a gap, and whoever makes a gap announces it and then looks
for readers: whatever the order, one sees the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from ..statistics import ReaderStatistics
from ..system.forks import renew_after_fork
from .permit import Permit

EndEarly = Callable[["Snapshot", Callable[[], Exception]], None]
"""Ends a read transaction; see :meth:`Snapshot.end_early`."""


@final
class Snapshot:
    """One read transaction, from a moment before its first statement until it has ended.

    ``permit`` tells whose it is, and ``since`` is in seconds of the clock. ``long`` says that it
    was declared so, ``outstayed`` that a gap has waited for it in vain, and ``reported`` that
    somebody was told of it.
    """

    __slots__ = ("_end_early", "long", "outstayed", "permit", "reported", "since")

    def __init__(
        self,
        permit: Permit,
        since: float,
        *,
        long: bool = False,
        end_early: EndEarly | None = None,
    ) -> None:
        self.permit = permit
        self.since = since
        self.long = long
        self.outstayed = False
        self.reported = False
        self._end_early = end_early

    @property
    def stays(self) -> bool:
        """Whether it is of no use to wait for its end."""
        return self.long or self.outstayed

    def end_early(self, error: Callable[[], Exception]) -> None:
        """Have it ended in its own loop: what its task tries next raises ``error()``."""
        loop = self.permit.loop
        if self._end_early is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._end_early, self, error)

    def statistics(self, now: float) -> ReaderStatistics:
        who = self.permit.describe_holder()
        return ReaderStatistics(now - self.since, who, self.long, self.outstayed)

    def describe(self, now: float) -> str:
        """``12.3 s by task 'report' (now at reports.py:88, last SQL: SELECT …)``"""
        return f"{now - self.since:.1f} s by {self.permit.describe_holder()}"


@dataclass(frozen=True, slots=True)
class SnapshotsStatistics:
    """``open`` read transactions, the ``oldest`` of them; ``in_gap``: new ones have to wait."""

    open: int
    oldest: ReaderStatistics | None
    in_gap: bool


@final
class Gap:
    """A gap while it lasts. ``until`` is when readers stop respecting it, in seconds."""

    __slots__ = ("_loop", "_news", "_open", "_running", "_time_is_up", "_waiting", "until")

    def __init__(self, open_: dict[Snapshot, None], until: float) -> None:
        self.until = until
        self._open = open_
        self._running: list[Snapshot] = []
        self._loop = asyncio.get_running_loop()
        self._time_is_up = False
        self._news = asyncio.Event()  # somebody has ended, or the time is up
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    @property
    def left(self) -> list[Snapshot]:
        """The read transactions from before the gap that have not ended."""
        return [snapshot for snapshot in self._running if snapshot in self._open]

    async def wait(self, seconds: float) -> None:
        """Wait for the last of them to end, at most ``seconds``."""
        self._time_is_up = False
        timer = self._loop.call_later(seconds, self._end_waiting)
        try:
            while self.left and not self._time_is_up:
                self._news.clear()
                await self._news.wait()
        finally:
            timer.cancel()

    def _end_waiting(self) -> None:
        self._time_is_up = True
        self._news.set()

    # -- for Snapshots --------------------------------------------------------------------------

    def note_running(self) -> None:
        self._running = list(self._open)  # who comes later sees the gap, and goes again

    def respected(self, now: float) -> bool:
        return now < self.until and not self._loop.is_closed()

    def tell_of_end(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
            self._loop.call_soon_threadsafe(self._news.set)

    async def until_over(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        mine = (loop, loop.create_future())
        timer = loop.call_later(seconds, _resolve, mine[1])
        self._waiting.add(mine)
        try:
            if self.until:  # entered first, looked then: it may have ended in another thread
                await mine[1]
        finally:
            timer.cancel()
            self._waiting.discard(mine)

    def end(self) -> None:
        self.until = 0.0
        for loop, future in list(self._waiting):
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future)


@final
class Snapshots:
    """The read transactions of this process on one database file, oldest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """The parent's read transactions are not this process's."""
        self._open: dict[Snapshot, None] = {}
        self._gap: Gap | None = None

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def oldest(self) -> Snapshot | None:
        return next(iter(list(self._open)), None)

    @property
    def in_gap(self) -> bool:
        """Whether new read transactions have to wait."""
        gap = self._gap  # once: another thread may end it between two looks
        return gap is not None and gap.respected(self._clock())

    def statistics(self) -> SnapshotsStatistics:
        """Return how many read, and which has read for the longest time."""
        found = list(self._open)
        oldest = found[0].statistics(self._clock()) if found else None
        return SnapshotsStatistics(len(found), oldest, self.in_gap)

    def begin(
        self,
        permit: Permit,
        *,
        long: bool = False,
        end_early: EndEarly | None = None,
    ) -> Snapshot | None:
        """Enter a read transaction that is about to begin; None in a gap: wait for its end."""
        snapshot = Snapshot(permit, self._clock(), long=long, end_early=end_early)
        self._open[snapshot] = None
        if self._gap is None or not self.in_gap:
            return snapshot
        self.end(snapshot)
        return None

    def end(self, snapshot: Snapshot) -> None:
        """The read transaction has ended. From any thread, and possibly more than once."""
        self._open.pop(snapshot, None)
        if (gap := self._gap) is not None:
            gap.tell_of_end()

    async def until_no_gap(self) -> None:
        """Wait for the end of the gap. A cancellation leaves nothing."""
        while (gap := self._gap) is not None and self.in_gap:
            await gap.until_over(gap.until - self._clock())

    @contextmanager
    def gap(self, seconds: float) -> Iterator[Gap]:
        """``with snapshots.gap(1.0) as gap``: no read transaction begins within the block.

        Readers respect it for ``seconds`` at the most. One gap at a time.
        """
        assert not self.in_gap, "one gap at a time"
        gap = self._gap = Gap(self._open, self._clock() + seconds)
        gap.note_running()
        try:
            yield gap
        finally:
            self._gap = None
            gap.end()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
