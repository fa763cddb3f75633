"""One timer for all waits of the same length."""

from __future__ import annotations

import asyncio

from sa_sqlite_pool.turn.deadlines import Deadlines
from tests.helpers import run_in_virtual_time, time_passes


def timers(loop: asyncio.AbstractEventLoop) -> int:
    """Return the number of timers that are not cancelled."""
    return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]


def test_each_is_woken_at_its_time() -> None:
    """The order of the requests does not matter."""

    async def main() -> None:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        woken: list[tuple[str, float]] = []
        for name, seconds in (("a", 5.0), ("b", 1.0), ("c", 5.0)):
            deadlines.add(seconds, lambda name=name: woken.append((name, loop.time())))  # type: ignore[misc]
        await time_passes(2)
        deadlines.add(5.0, lambda: woken.append(("d", loop.time())))
        await time_passes(10)
        start = woken[0][1] - 1.0
        assert [(name, round(at - start, 3)) for name, at in woken] == [
            ("b", 1.0),
            ("a", 5.0),
            ("c", 5.0),
            ("d", 7.0),
        ]
        assert not deadlines._queues or timers(loop) == 0

    run_in_virtual_time(main())


def test_who_is_served_is_not_woken() -> None:
    """When no task waits any more, no timer is left, either."""

    async def main() -> None:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        woken: list[int] = []
        wakes = [lambda n=n: woken.append(n) for n in range(100)]
        for wake in wakes:
            deadlines.add(5.0, wake)
        assert timers(loop) == 1
        for wake in wakes[:99]:
            deadlines.discard(5.0, wake)
        assert timers(loop) == 1
        await time_passes(6)
        assert woken == [99]
        deadlines.discard(5.0, wakes[99])
        deadlines.add(5.0, wakes[0])
        deadlines.discard(5.0, wakes[0])
        assert timers(loop) == 0
        await time_passes(6)
        assert woken == [99]
        assert not deadlines._queues

    run_in_virtual_time(main())
