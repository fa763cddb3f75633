"""A writer that never pauses beside readers whose snapshots always overlap."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from time import perf_counter

from ..measuring.clocks import Tally
from .doors import Door, Make
from .log_size import log_size, sampled
from .pages import batches, update_rows
from .readers import overlap, read

_IDLE_S = 1.0

_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Growth:
    """The result of one run. ``waits_s`` are the readers' waits for their first SELECT's result."""

    seconds: float
    warm_up: Tally
    writes: Tally
    reads: Tally
    waits_s: list[float]
    largest_log: int
    log_at_the_end: int


async def grow(make: Make, database: Path, *, readers: int, seconds: float, seed: int) -> Growth:
    """Write for ``seconds`` beside ``readers``, then leave the database idle for one second."""
    async with make(database) as door:
        transactions = batches(seed)
        warm_up, writes, reads = Tally(), Tally(), Tally()
        waits_s: list[float] = []
        await _write(door, islice(transactions, _WARM_UP), warm_up)
        await asyncio.gather(*(read(door, 0) for _ in range(readers)))
        gc.collect()
        with sampled(database) as samples:
            started = perf_counter()
            until = started + seconds
            reading = asyncio.create_task(overlap(door, until, reads, waits_s, readers=readers))
            await _write(door, _before(until, transactions), writes)
            seconds = perf_counter() - started
            await reading
        await asyncio.sleep(min(_IDLE_S, seconds))
        at_the_end = log_size(database)
    largest = max(size for _, size in samples)
    return Growth(seconds, warm_up, writes, reads, waits_s, largest, at_the_end)


def _before(until: float, transactions: Iterator[Sequence[int]]) -> Iterator[Sequence[int]]:
    return takewhile(lambda _: perf_counter() < until, transactions)


async def _write(door: Door, transactions: Iterable[Sequence[int]], tally: Tally) -> None:
    for keys in transactions:
        with tally.operation():
            async with door.write() as session:
                await update_rows(session, keys)
