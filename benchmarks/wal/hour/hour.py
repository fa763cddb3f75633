"""One hour of mixed work, compressed into minutes."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from ...measuring.clocks import Tally
from ..doors import Door, Make
from ..log_size import sampled
from ..pages import ROWS, add_rows, update_rows
from ..readers import overlap, read
from ..schedule import arrivals
from ..watching import Sight, watched
from . import outsider
from .phases import Phase, Reader

_IMPORTS_A_MIB = 2
_STAYS = 0.8
"""The share of a phase for which a reader keeps its snapshot."""


@dataclass(slots=True)
class Hour:
    """The result of one run.

    ``moments`` are the times of the start and of the end of each phase, ``sizes`` pairs of time and
    bytes, and ``waits_s`` the times that readers waited for their first result.
    """

    moments: list[float] = field(default_factory=list)
    sizes: list[tuple[float, int]] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    writes: Tally = field(default_factory=Tally)
    imports: Tally = field(default_factory=Tally)
    reads: Tally = field(default_factory=Tally)
    held_reads: Tally = field(default_factory=Tally)
    waits_s: list[float] = field(default_factory=list)

    @property
    def errors(self) -> Counter[str]:
        """The errors of all operations."""
        tallies = (self.writes, self.imports, self.reads, self.held_reads)
        return sum((tally.errors for tally in tallies), Counter())


async def live(make: Make, database: Path, phases: Sequence[Phase], minute_s: float) -> Hour:
    """Run all ``phases`` one after the other, each simulated minute in ``minute_s`` seconds."""
    hour = Hour()
    async with make(database) as door:
        with sampled(database) as hour.sizes:
            async with watched(door) as hour.sights:
                hour.moments.append(perf_counter())
                for phase in phases:
                    await _Scene(door, database, hour, phase.minutes * minute_s).play(phase)
                    hour.moments.append(perf_counter())
    return hour


class _Scene:
    """One phase while it is running."""

    def __init__(self, door: Door, database: Path, hour: Hour, seconds: float) -> None:
        self._door = door
        self._database = database
        self._hour = hour
        self._seconds = seconds
        self._started = perf_counter()
        self._chooser = random.Random(0)

    async def play(self, phase: Phase) -> None:
        """Run all work of the phase; work that does not fit into its time is left out."""
        await asyncio.gather(
            self._repeat(phase.minutes * phase.writes, self._write),
            self._repeat(phase.minutes * phase.reads, self._read),
            self._repeat(phase.imported * _IMPORTS_A_MIB, self._import),
            self._stay(phase.reader),
            asyncio.sleep(self._seconds),
        )

    async def _repeat(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        until = self._started + self._seconds
        async for _ in arrivals(self._started, self._seconds, count):
            if perf_counter() >= until:
                return
            await work()

    async def _write(self) -> None:
        with self._hour.writes.operation():
            async with self._door.write() as session:
                await update_rows(session, [self._chooser.randint(1, ROWS)])

    async def _import(self) -> None:
        with self._hour.imports.operation():
            async with self._door.write() as session:
                await add_rows(session)

    async def _read(self) -> None:
        with self._hour.reads.operation():
            self._hour.waits_s.append(await read(self._door, 0))

    async def _stay(self, reader: Reader | None) -> None:
        hold = self._seconds * _STAYS
        if reader is Reader.OUTSIDER:
            await _read_outside(self._database, hold)
        elif reader is Reader.OVERLAPPING:
            until = self._started + hold
            await overlap(self._door, until, self._hour.held_reads, self._hour.waits_s)
        elif reader is not None:
            with self._hour.held_reads.operation():
                await read(self._door, hold, long=reader is Reader.REPORT)


async def _read_outside(database: Path, hold: float) -> None:
    command = [sys.executable, outsider.__file__, str(database), str(hold)]
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise RuntimeError("the other process has failed")
