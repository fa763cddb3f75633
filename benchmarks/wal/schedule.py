"""Work that arrives by the clock, whatever becomes of the work before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter


async def arrivals(started: float, seconds: float, count: int) -> AsyncIterator[float]:
    """``count`` moments, evenly spread, each when it has come; at once where it is over."""
    for number in range(count):
        due = started + number * seconds / count
        await asyncio.sleep(max(0.0, due - perf_counter()))
        yield due
