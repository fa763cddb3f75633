"""Pauses that writers make for programs that do not know the write turn.

A stock engine or an sqlite3 shell that finds SQLite's lock taken retries after 1, 2, 5, 10, …
100 ms. Consecutive writers leave the lock free for only a few hundred microseconds, so such a
program might never find it free, and fail when its busy timeout expires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from ..system.clock import sleep, time

# Once such a program has been met, other programs get at least three tenths of the time for which
# the lock is held here: they hold it, or it is left free for them. This ends when none is met for
# two seconds. A program that begins again right after its own commit gets more.
_SHARE = 0.3
_REMEMBER_SECONDS = 2.0

# The timers of an event loop have a resolution of a millisecond.
_SHORTEST_SECONDS = 0.001
# SQLite's own longest pause between two attempts (sqliteDefaultBusyCallback in its main.c).
_LONGEST_SECONDS = 0.1


@final
class Courtesy:
    """The time that a process owes to other programs. ``clock`` returns monotonic seconds.

    ``met`` is False while no such program has been met recently; nothing is owed or counted then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._met_at = float("-inf")
        self._balance = 0.0
        self.met = False

    def meet(self) -> None:
        """Record that a program unaware of the turn holds SQLite's lock. From any thread."""
        self._met_at = self._clock()
        self.met = True

    def add_debt(self, seconds: float) -> None:
        """Add the ``seconds`` for which the lock was held here. From any thread."""
        self._balance = min(self._balance + seconds * _SHARE, _LONGEST_SECONDS)

    def pay_off(self, seconds: float) -> None:
        """Subtract ``seconds`` in which others held the lock, or could have. From any thread."""
        self._balance = max(self._balance - seconds, -_LONGEST_SECONDS)

    @property
    def owed(self) -> float:
        """The seconds for which the lock should be left free now."""
        if self._clock() - self._met_at >= _REMEMBER_SECONDS:
            self.met, self._balance = False, 0.0
        return 0.0 if self._balance < _SHORTEST_SECONDS else self._balance

    async def pause(self) -> None:
        """Leave the lock free while the caller holds the turn, so that no task in line takes it."""
        if seconds := self.owed:
            await sleep(seconds)
            self.pay_off(seconds)
