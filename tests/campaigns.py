"""What the tasks of the campaigns share; cancellations, checkpoints and kills are campaigns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from random import Random
from typing import Any


class OnPurpose(Exception):  # noqa: N818 - no error: the harness wants a rollback
    """Raised in a transaction, and expected to come back as it is."""


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Raises what the first that fails raises."""
    tasks = [asyncio.create_task(work) for work in works]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in others:
        task.cancel()
    await asyncio.gather(*done)


async def a_moment(longest: float, rng: Random) -> None:
    """At random, of real time: who comes when is what campaigns try out."""
    await asyncio.wait(
        {asyncio.get_running_loop().create_future()}, timeout=rng.uniform(0, longest)
    )


async def cancel_within(seconds: float, task: asyncio.Task[None], rng: Random) -> None:
    """Whatever else becomes of the task is raised."""
    await asyncio.wait({task}, timeout=rng.uniform(0, seconds))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
