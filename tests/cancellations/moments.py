"""The moments at which tasks are cancelled: random, and often critical."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from random import Random

Task = asyncio.Task[None]
Moment = Callable[[Task, asyncio.Event, Random], Awaitable[None]]
"""Let the task run for a random time, at most until it is done. For the event, see :func:`near`."""

_near: ContextVar[asyncio.Event] = ContextVar("_near")


def near_of_next_task() -> asyncio.Event:
    """Return the event that tasks created from now on set with :func:`near`."""
    event = asyncio.Event()
    _near.set(event)
    return event


def near() -> None:
    """Signal that an operation reaches a critical point: a commit, or a statement in the turn."""
    _near.get().set()


async def _laps(rng: Random) -> None:
    for _ in range(rng.randint(0, 8)):
        await asyncio.sleep(0)


async def _within(task: Task, seconds: float) -> None:
    await asyncio.wait({task}, timeout=seconds)


async def up_to_60_ms(task: Task, _near: asyncio.Event, rng: Random) -> None:
    """Cancel anywhere; under load, most tasks are waiting for something."""
    await _within(task, rng.uniform(0, 0.060))


async def at_once(_task: Task, _near: asyncio.Event, rng: Random) -> None:
    """Cancel before or soon after the first statement."""
    await _laps(rng)


async def soon(task: Task, _near: asyncio.Event, rng: Random) -> None:
    """Cancel within the first milliseconds."""
    await _within(task, rng.uniform(0, 0.003))


async def aimed(task: Task, event: asyncio.Event, rng: Random) -> None:
    """Cancel at the moment that the operation signals, or within two milliseconds."""
    waiter = asyncio.ensure_future(event.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    await soon_again(task, rng)


async def any_moment(task: Task, event: asyncio.Event, rng: Random) -> None:
    """Cancel at one of the other moments."""
    moments: list[Moment] = [at_once, soon, aimed, up_to_60_ms]
    moment = rng.choices(moments, [20, 25, 25, 30])[0]
    await moment(task, event, rng)


async def soon_again(task: Task, rng: Random) -> None:
    """Wait between two cancellations, so the second arrives during the first one's clean-up."""
    if rng.random() < 0.5:
        await _laps(rng)
    else:
        await _within(task, rng.uniform(0, 0.002))
