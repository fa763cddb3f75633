"""Another process that writes to the same file: it has the turn now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

from sa_sqlite_pool.turn.file_turn import FileTurn

_WAIT_SECONDS = 30.0
_LAPS = 20  # of the loop, at most, that it keeps the turn, and stays away


@contextlib.asynccontextmanager
async def neighbour(path: Path, rng: Random) -> AsyncIterator[None]:
    """While this is open, another process takes its turns. Locks know no processes, but holders."""
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
