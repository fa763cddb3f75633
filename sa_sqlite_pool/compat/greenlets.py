"""SQLAlchemy's ``greenlet_spawn``, in greenlets that are reused.

SQLAlchemy's asyncio support runs its synchronous code in a greenlet, which ``await_only()`` leaves
and enters again: a new one for each call. Here it is a :class:`~.runners.Runner`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, final

from greenlet import getcurrent

from .runners import MOST_IDLE, Runner

T = TypeVar("T")

_Step = Any  # something to be awaited for the greenlet, or the outcome


@final
class Spawned(Runner):
    """A greenlet of this module, and not one of SQLAlchemy's own."""

    __sqlalchemy_greenlet_provider__ = True  # await_only() works in it


async def go_on(runner: Spawned, step: _Step) -> Any:
    """Await what the greenlet awaits, until its function ends; return or raise the outcome."""
    while step is not runner.outcome:
        try:
            value = await step
        except BaseException:
            runner.comes_back_here()
            step = runner.throw(*sys.exc_info())
        else:
            # Runner.comes_back_here(), without the call: a lap of the loop comes here.
            if runner.parent is not (current := getcurrent()):
                runner.parent = current
            step = runner.switch(value)
    return runner.finish()


async def greenlet_spawn(
    function: Callable[..., T],
    *args: Any,
    _require_await: bool = False,
    _go_on: Callable[[Spawned, _Step], Awaitable[Any]] = go_on,
    **kwargs: Any,
) -> T:
    """Run ``function`` as SQLAlchemy's function of that name does, in a greenlet that is reused.

    ``_require_await`` has no effect: it would raise if nothing was awaited, which is the sign of
    a driver that blocks the loop. ``_go_on`` is called if anything is awaited.
    """
    # Runner.take() and finish(), without the calls: three of these run in each read.
    runners = Spawned.idle.runners
    runner: Spawned = runners.pop() if runners else Spawned()
    current = getcurrent()
    if runner.parent is not current:
        runner.parent = current
    runner.gr_context = current.gr_context
    outcome, step = runner.outcome, runner.switch(function, args, kwargs)
    if step is not outcome or outcome.error or runner.dead or len(runners) >= MOST_IDLE:
        result: T = runner.finish() if step is outcome else await _go_on(runner, step)
        return result
    runner.gr_context = None
    runners.append(runner)
    result, outcome.result = outcome.result, None
    return result


async def _go_on_to_end(runner: Spawned, step: _Step) -> Any:
    began = False

    async def rest() -> Any:
        nonlocal began
        began = True
        return await go_on(runner, step)

    task = asyncio.ensure_future(rest())
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if not began:  # it was cancelled, too: the loop ends
        await go_on(runner, step)
    if cancelled is not None:
        raise cancelled from None if task.cancelled() else task.exception()
    return task.result() if began else None


# Without a frame of its own, since each block ends by it.
run_to_end = partial(greenlet_spawn, _go_on=_go_on_to_end)
"""Run a function as :func:`greenlet_spawn` does, to its end also if the task is cancelled.

If it awaits anything, it goes on in a task of its own, and a cancellation is raised when that has
ended, well or not. If it awaits nothing, it ends at once, with nothing to be cancelled.
"""
