"""SQLAlchemy's ``greenlet_spawn``, in greenlets that are reused.

SQLAlchemy's asyncio support runs its synchronous code in a greenlet, which ``await_only()`` leaves
and enters again: a new one for each call. Here it is a :class:`~.runners.Runner`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
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


async def greenlet_spawn(
    function: Callable[..., T],
    *args: Any,
    _require_await: bool = False,
    _to_end: bool = False,
    **kwargs: Any,
) -> T:
    """Run ``function`` as SQLAlchemy's function of that name does, in a greenlet that is reused.

    ``_require_await`` has no effect: it would raise if nothing was awaited, which is the sign of
    a driver that blocks the loop. ``_to_end`` is that of :func:`run_to_end`.
    """
    # Runner.take() and finish(), without the calls: three of these run in each read. Nor is there
    # a call between two steps: where `await step` has no room left in the stack, neither has that,
    # and a greenlet that waits for its next step for ever keeps what it has, as a connection:
    # SQLAlchemy's await_only() refers to the greenlet in it, and what is suspended is no garbage.
    runners = Spawned.idle.runners
    runner: Spawned = runners.pop() if runners else Spawned()
    current = getcurrent()
    if runner.parent is not current:
        runner.parent = current
    runner.gr_context = current.gr_context
    outcome, step = runner.outcome, runner.switch(function, args, kwargs)
    while step is not outcome:
        rest = _Rest() if _to_end else None
        try:
            if rest is not None:
                return await rest.end(runner, step)  # type: ignore[no-any-return]
            value = await step
        except BaseException:
            if rest is not None:
                if rest.began or rest.task is not None:
                    raise
                rest.withdrawn = True
            runner.parent = getcurrent()  # as comes_back_here() does
            step = runner.throw(*sys.exc_info())
        else:
            runner.parent = getcurrent()
            step = runner.switch(value)
    if outcome.error or outcome.last or len(runners) >= MOST_IDLE:
        try:
            return runner.finish()  # type: ignore[no-any-return]
        finally:
            outcome.error = None  # it leads to this frame, and so to the greenlet
    runner.gr_context = None
    runners.append(runner)
    result: T
    result, outcome.result = outcome.result, None
    return result


# Without a frame of its own, since each block ends by it.
run_to_end = partial(greenlet_spawn, _to_end=True)
"""Run a function as :func:`greenlet_spawn` does, to its end also if the task is cancelled.

If it awaits anything, it goes on in a task of its own, and a cancellation is raised when that has
ended, well or not. If it awaits nothing, it ends at once, with nothing to be cancelled.
"""


@final
class _Rest:
    """What is left to be done in a greenlet, by a task of its own."""

    task: asyncio.Task[Any] | None = None
    began = False
    withdrawn = False  # no task could be made for it: it is done elsewhere

    async def end(self, runner: Spawned, step: _Step) -> Any:
        """Do it, also if the running task is cancelled."""
        task = self.task = asyncio.ensure_future(self._go_on(runner, step))
        cancelled = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        began = self.began
        if not began:  # it was cancelled, too: the loop ends
            await self._go_on(runner, step)
        if cancelled is not None:
            raise cancelled from None if task.cancelled() else task.exception()
        return task.result() if began else None

    async def _go_on(self, runner: Spawned, step: _Step) -> Any:
        """Await what the greenlet awaits, until its function ends; return or raise the outcome."""
        if self.withdrawn:
            return None
        self.began = True
        while step is not runner.outcome:
            try:
                value = await step
            except BaseException:
                runner.parent = getcurrent()
                step = runner.throw(*sys.exc_info())
            else:
                runner.parent = getcurrent()
                step = runner.switch(value)
        try:
            return runner.finish()
        finally:
            runner.outcome.error = None
