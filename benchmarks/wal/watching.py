"""Observation of the log through the package's own statistics while something runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

from sa_sqlite_pool import Checkpoint, SQLiteDatabase

from .doors import Door

_INTERVAL_S = 0.02

FRAME_SIZE = 4096 + 24
"""The size of a page in the log, in bytes."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The state at one moment; ``in_use`` is in bytes."""

    at: float
    in_use: int
    last_checkpoint: Checkpoint | None


@asynccontextmanager
async def watched(door: Door) -> AsyncIterator[list[Sight]]:
    """Look every 20 ms while the block runs; never if the engine has no statistics."""
    sights: list[Sight] = []
    if not isinstance(door, SQLiteDatabase):
        yield sights
        return
    sights.append(_look(door))
    watcher = asyncio.create_task(_watch(door, sights))
    try:
        yield sights
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        sights.append(_look(door))


async def _watch(db: SQLiteDatabase, sights: list[Sight]) -> None:
    while True:
        await asyncio.sleep(_INTERVAL_S)
        sights.append(_look(db))


def _look(db: SQLiteDatabase) -> Sight:
    wal = db.statistics().wal
    assert wal is not None, "a file has a log"
    return Sight(perf_counter(), wal.frames * FRAME_SIZE, wal.last_checkpoint)


def checkpoints(sights: Sequence[Sight]) -> int:
    """Return the number of checkpoints that ended; they are much rarer than looks."""
    lasts = [sight.last_checkpoint for sight in sights]
    return sum(one is not other for one, other in pairwise(lasts))
