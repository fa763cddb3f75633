"""The limit on repeated warnings: one is logged per minute, and the others are counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import final

from ..mutex import new_rlock
from ..system.clock import time
from ..system.forks import renew_after_fork

# Seconds during which warnings equal to a logged one are counted instead of logged.
PAUSE_SECONDS = 60.0

# The number of warnings that are remembered. The least recently logged one is dropped.
MOST_REMEMBERED = 512


@final
class Repeats:
    """The warnings logged in the last minute. Its methods may be called from any thread.

    ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.renew_in_child()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._logged)

    def renew_in_child(self) -> None:
        """Reset the state: a thread of the parent process may have held the mutex."""
        # Reentrant: the garbage collector may run arbitrary code in the middle of a method.
        self._mutex = new_rlock()
        # When each was last logged, and how many equal ones were left out since then.
        self._logged: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def admit(self, key: Hashable) -> int | None:
        """Return how many warnings equal in ``key`` were left out; None if this one is left out."""
        now = self._clock()
        with self._mutex:
            at, left_out = self._logged.get(key, (None, 0))
            if at is not None and now - at < PAUSE_SECONDS:
                self._logged[key] = (at, left_out + 1)
                return None
            self._logged[key] = (now, 0)
            self._logged.move_to_end(key)
            if len(self._logged) > MOST_REMEMBERED:
                self._logged.popitem(last=False)
        return left_out


def others_left_out(count: int) -> str:
    """Return the end of a message: how many equal warnings were not logged."""
    return f"; {count} more since the last such warning were not logged" if count else ""
