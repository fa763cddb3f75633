"""Whether a server responds, as observed by both engines of a database."""

from __future__ import annotations

from typing import final

from ...system.clock import time
from ...system.forks import renew_after_fork


@final
class Outages:
    """The outages of a server; ``since`` is the monotonic time when this one began, None if none.

    ``failure`` is its cause, and ``times`` the number of outages. A child process starts from zero.
    """

    def __init__(self) -> None:
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self.since: float | None = None
        self.failure: BaseException | None = None
        self.times = 0

    def begin(self, failure: BaseException) -> bool:
        """Record that the server does not respond; return whether this outage is new."""
        self.failure = failure
        if self.since is not None:
            return False
        self.since = time.monotonic()
        self.times += 1
        return True

    def end(self) -> None:
        """Record that the server responds."""
        self.since = self.failure = None
