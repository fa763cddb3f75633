"""Counters of a line: how many tasks have waited, how long, and with which end."""

from __future__ import annotations

from bisect import bisect_left
from typing import final

from .lines import BOUNDS_SECONDS, Waits


@final
class WaitCounter:
    """Counts the waits in one line. Its owner lets one thread at a time use it.

    But :meth:`snapshot` may be called in any thread: all that is counted of a wait is replaced in
    one step of the interpreter, so that it is seen as a whole or not at all.

    ``at_once`` is increased by the owner itself, at each permit that was free: a call would take
    as long as the rest.
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
        """Return what was counted so far."""
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
