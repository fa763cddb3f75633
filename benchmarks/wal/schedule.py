"""Work that arrives on a fixed schedule, whether or not earlier work has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter


async def arrivals(started: float, seconds: float, count: int) -> AsyncIterator[float]:
    """Yield ``count`` evenly spread times, each when it arrives, or at once if it has passed."""
    for number in range(count):
        due = started + number * seconds / count
        await asyncio.sleep(max(0.0, due - perf_counter()))
        yield due
