"""The read transactions of a database file, and the gap in which none begins.

A log can restart from its beginning only while no read transaction uses it. Where readers overlap
all the time, there is no such moment, so a gap creates one: new read transactions wait while the
running ones end.

    Running reader      | New reader            | Task that makes the gap
                        |                       | gap begins
                        | begin(): waits        | waits until no reader is left
    end(): was the last |                       | (wakes) truncates the log
                        |                       | gap ends
                        | (wakes) continues     |

Readers of any number of event loops and threads share one object. There is no mutex, since
the garbage collector may call ``end()`` in the middle of any method here. Instead, a reader first
registers itself and then checks for a gap, and a gap is announced before its task checks for
readers: whatever the order, one sees the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

from ..stats.log import GapsStatistics, ReaderStatistics, SnapshotsStatistics
from ..system.clock import call_later, resolve, time
from ..system.forks import renew_after_fork
from ..system.loop_state import call_unless_closed
from .permit import Permit

EndEarly = Callable[["Snapshot", Callable[[], Exception]], None]
"""A function that ends a read transaction; see :meth:`Snapshot.end_early`."""


@final
class Snapshot:
    """One read transaction, from a moment before its first statement until it has ended.

    ``permit`` is that of its holder; ``since`` is in seconds of the clock. ``long`` is True if it
    was declared long, ``outstayed`` once a gap has waited for it in vain, ``reported`` once a
    warning has named it, ``ends_early`` once :meth:`end_early` was called: its loop may be busy.
    """

    __slots__ = (
        "_end_early",
        "ends_early",
        "long",
        "outstayed",
        "permit",
        "reported",
        "since",
    )

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
        self.ends_early = False
        self._end_early = end_early

    @property
    def stays(self) -> bool:
        """True if gaps do not wait for this transaction: it is long, or has outstayed one."""
        return self.long or self.outstayed

    def end_early(self, error: Callable[[], Exception]) -> None:
        """End the transaction, in its own loop: the next call of its task raises ``error()``."""
        self.ends_early = True
        loop = self.permit.loop
        if self._end_early is not None and loop is not None:
            call_unless_closed(loop, self._end_early, self, error)

    def statistics(self, now: float) -> ReaderStatistics:
        who = self.permit.describe_holder()
        return ReaderStatistics(now - self.since, who, self.long, self.outstayed)

    def describe(self, now: float) -> str:
        """Return ``12.3 s by task 'report' (now at reports.py:88, last SQL: SELECT …)``."""
        return f"{now - self.since:.1f} s by {self.permit.describe_holder()}"


@final
class Gap:
    """A gap in progress. Readers respect it until ``until``, in seconds of the clock."""

    __slots__ = ("_loop", "_news", "_open", "_running", "_time_is_up", "_waiting", "until")

    def __init__(self, open_: dict[Snapshot, None], until: float) -> None:
        self.until = until
        self._open = open_
        self._running: list[Snapshot] = []
        self._loop = asyncio.get_running_loop()
        self._time_is_up = False
        self._news = asyncio.Event()  # a reader has ended, or the time is up
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    @property
    def left(self) -> list[Snapshot]:
        """The read transactions from before the gap that have not ended."""
        return [snapshot for snapshot in self._running if snapshot in self._open]

    async def wait(self, seconds: float) -> None:
        """Wait for the last of these read transactions to end, at most ``seconds``."""
        self._time_is_up = False
        timer = call_later(self._loop, seconds, self._end_waiting)
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
        self._running = list(self._open)  # a later reader sees the gap, and backs out

    def respected(self, now: float) -> bool:
        return now < self.until and not self._loop.is_closed()

    def tell_of_end(self) -> None:
        """Wake the gap's task because a read transaction has ended. From any thread."""
        call_unless_closed(self._loop, self._news.set)

    async def until_over(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        mine = (loop, loop.create_future())
        timer = call_later(loop, seconds, resolve, mine[1])
        self._waiting.add(mine)
        try:
            if self.until:  # read after the add() above: another thread may have ended the gap
                await mine[1]
        finally:
            timer.cancel()
            self._waiting.discard(mine)

    def end(self) -> None:
        self.until = 0.0
        for loop, future in list(self._waiting):
            call_unless_closed(loop, resolve, future)


@final
class Snapshots:
    """The read transactions of this process on one database file, oldest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Discard the read transactions of the parent process."""
        self._open: dict[Snapshot, None] = {}
        self._gap: Gap | None = None
        self._gaps = self._readers_waited = 0
        self._gap_seconds = self._longest_gap = 0.0

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def oldest(self) -> Snapshot | None:
        return next(iter(list(self._open)), None)

    @property
    def in_gap(self) -> bool:
        """True while new read transactions have to wait."""
        gap = self._gap  # read once: another thread may end the gap meanwhile
        return gap is not None and gap.respected(self._clock())

    def statistics(self) -> SnapshotsStatistics:
        """Return the number of read transactions, the oldest, and the counters of the gaps."""
        found = list(self._open)
        return SnapshotsStatistics(
            open=len(found),
            oldest=found[0].statistics(self._clock()) if found else None,
            gaps=GapsStatistics(
                gaps=self._gaps,
                seconds=self._gap_seconds,
                longest_seconds=self._longest_gap,
                readers_waited=self._readers_waited,
            ),
        )

    def begin(
        self,
        permit: Permit,
        *,
        long: bool = False,
        end_early: EndEarly | None = None,
    ) -> Snapshot | None:
        """Register a read transaction about to begin; return None if a gap has to end first."""
        snapshot = Snapshot(permit, self._clock(), long=long, end_early=end_early)
        self._open[snapshot] = None
        if self._gap is None or not self.in_gap:
            return snapshot
        self.end(snapshot)
        return None

    def end(self, snapshot: Snapshot) -> None:
        """Remove a read transaction that has ended. Idempotent, and callable from any thread."""
        self._open.pop(snapshot, None)
        if (gap := self._gap) is not None:
            gap.tell_of_end()

    async def until_no_gap(self) -> None:
        """Wait for the end of the gap. A cancellation leaves nothing."""
        self._readers_waited += self.in_gap
        while (gap := self._gap) is not None and self.in_gap:
            await gap.until_over(gap.until - self._clock())

    @contextmanager
    def gap(self, seconds: float) -> Iterator[Gap]:
        """Hold back new read transactions within ``with snapshots.gap(1.0) as gap:``.

        Readers respect the gap for at most ``seconds``. There can be only one gap at a time.
        """
        assert not self.in_gap, "one gap at a time"
        began = self._clock()
        gap = self._gap = Gap(self._open, began + seconds)
        gap.note_running()
        try:
            yield gap
        finally:
            if self._gap is gap:  # else its loop has died, and there is another gap
                self._gap = None
            gap.end()
            lasted = self._clock() - began
            self._gaps += 1
            self._gap_seconds += lasted
            self._longest_gap = max(self._longest_gap, lasted)
