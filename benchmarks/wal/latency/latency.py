"""Steady writes, in slices: contenders take turns every few seconds, each with its own file.

Other load on the machine affects all contenders alike, and a checkpoint is still a rare event in a
long run of writes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from ...databases import files
from ...measuring.clocks import Tally
from ...running.rounds import rotated
from ...ways.settings import Settings, settings_of
from ..doors import Door, Make
from ..log_size import sampled
from ..schedule import arrivals
from ..watching import checkpoints, watched
from .rows import Move, move_row, moves

TASKS = 50
PACE = 100
"""Transactions per second that arrive on a fixed schedule."""

_WARM_UP_S = 0.5
_SETTLE_S = 0.2
"""The pause between slices, for work that the previous one has left."""


@dataclass(slots=True)
class Entrant:
    """A contender with its open database, and its results so far."""

    name: str
    door: Door
    database: Path
    settings: Settings
    moves: Iterator[Move]
    warm_up: Tally = field(default_factory=Tally)
    measured: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    checkpoints: int = 0
    largest_log: int = 0

    async def write(self, tally: Tally, since: float | None = None) -> None:
        """Run one transaction."""
        with tally.operation(since):
            async with self.door.write() as session:
                await move_row(session, next(self.moves))


async def closed(entrant: Entrant, tally: Tally, seconds: float) -> None:
    """Run fifty tasks, each of which begins a transaction when its previous one has ended."""
    until = perf_counter() + seconds

    async def keep_writing() -> None:
        while perf_counter() < until:
            await entrant.write(tally)

    await asyncio.gather(*(keep_writing() for _ in range(TASKS)))


async def paced(entrant: Entrant, tally: Tally, seconds: float) -> None:
    """Begin a hundred transactions per second on schedule, whether or not earlier ones have ended.

    Their time is measured from when they were due, so delays by a stall are not left out.
    """
    moments = arrivals(perf_counter(), seconds, int(seconds * PACE))
    tasks = [asyncio.create_task(entrant.write(tally, due)) async for due in moments]
    await asyncio.gather(*tasks)


@dataclass(frozen=True, slots=True)
class Load:
    """A load: ``write`` writes for a number of seconds; ``slice_s`` is the length of a slice.

    Between its slices, a database is idle, and the keeper runs a checkpoint then if the log is
    large enough. So a slice is long enough to contain checkpoints itself.
    """

    name: str
    title: str
    write: Callable[[Entrant, Tally, float], Awaitable[None]]
    slice_s: float


CLOSED = Load("closed", f"{TASKS} tasks, each as fast as it can", closed, 5.0)
PACED = Load("paced", f"{PACE} a second by the clock, latency from when due", paced, 15.0)


async def race(
    contenders: Mapping[str, Make],
    load: Load,
    template: Path,
    directory: Path,
    *,
    seconds: float,
    seed: int,
) -> list[Entrant]:
    """Let each contender write for ``seconds`` in total, in slices, in rotating order."""
    async with AsyncExitStack() as stack:
        entrants = []
        for number, (name, make) in enumerate(contenders.items()):
            place = directory / str(number)
            place.mkdir()
            database = files.copy(template, place)
            door = await stack.enter_async_context(make(database))
            entrants.append(Entrant(name, door, database, await _settings(door), moves(seed)))
        for entrant in entrants:
            await load.write(entrant, entrant.warm_up, min(_WARM_UP_S, seconds))
        slices = max(1, round(seconds / load.slice_s))
        for number in range(slices):
            for entrant in rotated(entrants, seed + number):
                await _slice(entrant, load, seconds / slices)
    return entrants


async def _settings(door: Door) -> Settings:
    async with door.write() as session:
        return await (await session.connection()).run_sync(settings_of)


async def _slice(entrant: Entrant, load: Load, seconds: float) -> None:
    gc.collect()
    await asyncio.sleep(_SETTLE_S)
    with sampled(entrant.database) as samples:
        async with watched(entrant.door) as sights:
            started = perf_counter()
            await load.write(entrant, entrant.measured, seconds)
            entrant.seconds += perf_counter() - started
    entrant.checkpoints += checkpoints(sights)
    entrant.largest_log = max(entrant.largest_log, *(size for _, size in samples))
