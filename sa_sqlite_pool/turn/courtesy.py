"""Time that is left to programs which do not stand in line.

A stock engine, or an sqlite3 shell, finds SQLite's lock taken, and asks again after 1, 2, 5, 10, …
100 ms. Writers that follow one another leave the lock free for some hundred microseconds, so such a
program might never find it free, and give up after its busy time-out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import final

# Once one was met, they get at least three tenths of the time that the lock is held here, by taking
# it or by its being left free for them, until none is met for two seconds. It is the least: who
# begins again right after its own commit gets more.
_SHARE = 0.3
_REMEMBER_SECONDS = 2.0

# Timers of a loop are milliseconds.
_SHORTEST_SECONDS = 0.001
# SQLite's own longest pause between two tries (sqliteDefaultBusyCallback in its main.c).
_LONGEST_SECONDS = 0.1


@final
class Courtesy:
    """What the writers of a process owe to others. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._met_at = float("-inf")
        self._balance = 0.0

    def meet(self) -> None:
        """Somebody who does not stand in line has SQLite's lock. From any thread."""
        self._met_at = self._clock()

    def hold(self, seconds: float) -> None:
        """The lock was held here for so long. From any thread."""
        self._balance = min(self._balance + seconds * _SHARE, _LONGEST_SECONDS)

    def wait(self, seconds: float) -> None:
        """It was held by others meanwhile, or left free for them. From any thread."""
        self._balance = max(self._balance - seconds, -_LONGEST_SECONDS)

    @property
    def owed(self) -> float:
        """Seconds for which the lock should be left free now."""
        if self._clock() - self._met_at >= _REMEMBER_SECONDS:
            self._balance = 0.0
        return 0.0 if self._balance < _SHORTEST_SECONDS else self._balance

    async def pause(self) -> None:
        """Leave it free, with the turn in hand: nobody who stands in line comes first."""
        if seconds := self.owed:
            await asyncio.sleep(seconds)
            self.wait(seconds)
