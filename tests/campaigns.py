"""Helpers shared by the tasks of campaigns: cancellations, checkpoints and kills."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from random import Random
from typing import Any


class OnPurpose(Exception):  # noqa: N818 - no error: the harness wants a rollback
    """Raised in a transaction, and expected to propagate unchanged."""


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all works concurrently; raise the error of the first that fails."""
    tasks = [asyncio.create_task(work) for work in works]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in others:
        task.cancel()
    await asyncio.gather(*done)


async def a_moment(longest: float, rng: Random) -> None:
    """Sleep for a random real time: campaigns try out different interleavings."""
    await asyncio.wait(
        {asyncio.get_running_loop().create_future()}, timeout=rng.uniform(0, longest)
    )


async def cancel_within(seconds: float, task: asyncio.Task[None], rng: Random) -> None:
    """Cancel the task after a random time; raise any other outcome."""
    await asyncio.wait({task}, timeout=rng.uniform(0, seconds))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
