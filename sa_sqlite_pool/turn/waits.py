"""Counters of a line: how many tasks have waited, how long, and with which end."""

from __future__ import annotations

from bisect import bisect_left
from typing import final

from ..stats.lines import BOUNDS_SECONDS, Waits


@final
class WaitCounter:
    """Counts the waits in one line. Its owner lets one thread at a time use it.

    ``at_once`` is increased by the owner itself, at each permit that was free: a call would take
    as long as the rest.
    """

    __slots__ = (
        "_cancelled",
        "_histogram",
        "_longest",
        "_seconds",
        "_sent_away",
        "_timed_out",
        "_waited",
        "at_once",
    )

    def __init__(self) -> None:
        self.at_once = 0
        self._waited = self._timed_out = self._cancelled = self._sent_away = 0
        self._seconds = self._longest = 0.0
        self._histogram = [0] * (len(BOUNDS_SECONDS) + 1)

    def ended(
        self,
        seconds: float,
        *,
        timed_out: bool = False,
        cancelled: bool = False,
        sent_away: bool = False,
    ) -> None:
        """Count a wait that has ended."""
        self._waited += 1
        self._timed_out += timed_out
        self._cancelled += cancelled
        self._sent_away += sent_away
        self._seconds += seconds
        self._longest = max(self._longest, seconds)
        self._histogram[bisect_left(BOUNDS_SECONDS, seconds)] += 1

    def snapshot(self) -> Waits:
        """Return what was counted so far."""
        return Waits(
            at_once=self.at_once,
            waited=self._waited,
            timed_out=self._timed_out,
            cancelled=self._cancelled,
            sent_away=self._sent_away,
            seconds=self._seconds,
            longest_seconds=self._longest,
            histogram=tuple(self._histogram),
        )
