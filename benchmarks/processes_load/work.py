"""The work of one process: tasks that write in a closed loop, started together with all others."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from sqlalchemy import CursorResult

from ..loads.one_row_writes import ADD_ONE, ROWS
from ..measuring.clocks import Tally, loop_lag
from ..ways.settings import Settings, settings_of
from ..ways.steps import check_count
from .doors import DOORS, Begin


@dataclass(frozen=True, slots=True)
class Load:
    """The load: each of ``tasks`` writes one row per transaction, and sleeps before the commit."""

    tasks: int
    hold_s: float
    seconds: float


@dataclass(slots=True)
class Share:
    """The work done by one process; ``in_time`` transactions were committed before time was up."""

    door: str
    settings: Settings
    warm_up: Tally = field(default_factory=Tally)
    measured: Tally = field(default_factory=Tally)
    in_time: int = 0
    overshoots_s: list[float] = field(default_factory=list)


def work(database: Path, door: str, load: Load, seed: str, meet: Callable[[], object]) -> Share:
    """Open ``database``, call ``meet()``, which returns in all processes together, and write."""
    return asyncio.run(_work(database, door, load, random.Random(seed), meet))


async def _work(
    database: Path, door: str, load: Load, rng: random.Random, meet: Callable[[], object]
) -> Share:
    async with DOORS[door](database) as begin:
        share = Share(door, await _settings(begin))
        await asyncio.gather(
            *(_write(begin, load, rng, share.warm_up) for _ in range(load.tasks))
        )  # opens connections, and compiles statements
        gc.collect()
        meet()
        end = perf_counter() + load.seconds
        async with loop_lag() as share.overshoots_s:
            tasks = (_repeat(begin, load, rng, share, end) for _ in range(load.tasks))
            await asyncio.gather(*tasks)
    return share


async def _settings(begin: Begin) -> Settings:
    async with begin() as session:
        return await (await session.connection()).run_sync(settings_of)


async def _repeat(begin: Begin, load: Load, rng: random.Random, share: Share, end: float) -> None:
    while perf_counter() < end:
        acknowledged = await _write(begin, load, rng, share.measured)
        share.in_time += acknowledged and perf_counter() < end


async def _write(begin: Begin, load: Load, rng: random.Random, tally: Tally) -> bool:
    """Run one transaction, timed from the request for the session to the end of the commit."""
    key, before = rng.randint(1, ROWS), tally.errors.total()
    with tally.operation():
        async with begin() as session:
            result = await session.execute(ADD_ONE, {"key": key})
            check_count(cast("CursorResult[Any]", result).rowcount)
            await asyncio.sleep(load.hold_s)
        return True
    return tally.errors.total() == before
