"""Whether a server answers, as both engines of a database have found."""

from __future__ import annotations

from typing import final

from ...system.clock import time
from ...system.forks import renew_after_fork


@final
class Outages:
    """``since`` is the monotonic time at which a server was found not to answer, None if it does.

    ``failure`` says why, ``times`` how often that has begun. A child process counts from zero.
    """

    def __init__(self) -> None:
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self.since: float | None = None
        self.failure: BaseException | None = None
        self.times = 0

    def begin(self, failure: BaseException) -> bool:
        """Note that it does not answer; return whether that is news."""
        self.failure = failure
        if self.since is not None:
            return False
        self.since = time.monotonic()
        self.times += 1
        return True

    def end(self) -> None:
        """Note that it answers."""
        self.since = self.failure = None
