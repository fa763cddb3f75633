"""Read transactions that stay open for a while."""

from __future__ import annotations

import asyncio
from time import perf_counter

from ..measuring.clocks import Tally, WrongAnswerError
from .doors import Door
from .pages import look

READERS = 4

HOLD_S = 0.4
"""The time for which each reader keeps a snapshot."""

STAGGER_S = 0.1
"""The interval between their starts, so there is always at least one."""


async def read(door: Door, hold: float, *, long: bool = False) -> float:
    """Look twice at one snapshot; return the time of the first look, from the session's request."""
    asked = perf_counter()
    async with door.read(long=long) as session:
        first = await look(session)
        wait = perf_counter() - asked
        await asyncio.sleep(hold)
        if await look(session) != first:
            raise WrongAnswerError("a snapshot changed while it was read")
    return wait


async def overlap(
    door: Door, until: float, tally: Tally, waits_s: list[float], *, readers: int = READERS
) -> None:
    """Run overlapping readers, each with one snapshot after the other."""

    async def keep_reading(delay: float) -> None:
        await asyncio.sleep(delay)
        while perf_counter() < until:
            with tally.operation():
                waits_s.append(await read(door, HOLD_S))

    await asyncio.gather(*(keep_reading(number * STAGGER_S) for number in range(readers)))
