"""Lines for tests of the semaphore."""

from __future__ import annotations

import asyncio

from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.permit import Permit


def semaphore(capacity: int = 1) -> FairSemaphore:
    return FairSemaphore(capacity, clock=lambda: asyncio.get_running_loop().time())


async def take(line: FairSemaphore, timeout: float | None = None) -> Permit:
    permit = await line.acquire(timeout)
    assert permit is not None
    return permit


class HeldMutex:
    """A mutex held by this thread; ``waited`` tells whether the code waited for it nevertheless."""

    waited = False

    def acquire(self, _blocking: bool) -> bool:
        return False

    def __enter__(self) -> None:
        self.waited = True

    def __exit__(self, *_: object) -> None:
        pass
