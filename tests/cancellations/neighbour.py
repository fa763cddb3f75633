"""Another process that writes to the same file, and occasionally holds the turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

from sa_sqlite_pool.turn.file_turn import FileTurn

_WAIT_SECONDS = 30.0
_LAPS = 20  # the maximum of laps of the loop for which it holds the turn, or stays away


@contextlib.asynccontextmanager
async def neighbour(path: Path, rng: Random) -> AsyncIterator[None]:
    """Simulate another process that takes its turns. Locks belong to holders, not to processes."""
    task = asyncio.create_task(_take_turns(FileTurn(str(path)), rng), name="another process")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _take_turns(turn: FileTurn, rng: Random) -> None:
    while True:
        request = turn.acquire_nowait() or await turn.acquire(_WAIT_SECONDS)
        assert request is not None, f"no turn within {_WAIT_SECONDS} s"
        with request:
            await _laps(rng)
        await _laps(rng)


async def _laps(rng: Random) -> None:
    for _ in range(rng.randrange(_LAPS)):
        await asyncio.sleep(0)
