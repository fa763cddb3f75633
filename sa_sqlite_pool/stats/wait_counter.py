"""Counters of a line: how many tasks have waited, how long, and with which outcome."""

from __future__ import annotations

from bisect import bisect_left
from typing import final

from .lines import BOUNDS_SECONDS, Waits


@final
class WaitCounter:
    """A counter of the waits in one line. Its owner ensures that one thread at a time uses it.

    :meth:`snapshot`, however, may be called from any thread: all counts of a wait are replaced in
    one step of the interpreter, so they are visible together or not at all.

    The owner itself increments ``at_once`` for each permit that is free: a method call would cost
    as much as the rest.
    """

    __slots__ = ("_ended", "at_once")

    def __init__(self) -> None:
        self.at_once = 0
        # waited, timed out, cancelled, sent away, seconds, the longest; then the histogram
        self._ended = (0, 0, 0, 0, 0.0, 0.0, (0,) * (len(BOUNDS_SECONDS) + 1))

    def ended(
        self,
        seconds: float,
        *,
        timed_out: bool = False,
        cancelled: bool = False,
        sent_away: bool = False,
    ) -> None:
        """Count a wait that has ended."""
        waited, timed_outs, cancellations, sent, total, longest, histogram = self._ended
        bucket = bisect_left(BOUNDS_SECONDS, seconds)
        self._ended = (
            waited + 1,
            timed_outs + timed_out,
            cancellations + cancelled,
            sent + sent_away,
            total + seconds,
            max(longest, seconds),
            (*histogram[:bucket], histogram[bucket] + 1, *histogram[bucket + 1 :]),
        )

    def snapshot(self) -> Waits:
        """Return the counts so far."""
        waited, timed_out, cancelled, sent_away, seconds, longest, histogram = self._ended
        return Waits(
            at_once=self.at_once,
            waited=waited,
            timed_out=timed_out,
            cancelled=cancelled,
            sent_away=sent_away,
            seconds=seconds,
            longest_seconds=longest,
            histogram=histogram,
        )
