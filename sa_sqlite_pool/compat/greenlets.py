"""SQLAlchemy's ``greenlet_spawn``, in greenlets that are reused.

SQLAlchemy's asyncio support runs its synchronous code in a greenlet, which ``await_only()`` leaves
and re-enters: a new greenlet for each call. Here it is a :class:`~.runners.Runner`.
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

_Step = Any  # an awaitable to await for the greenlet, or the outcome


@final
class Spawned(Runner):
    """A greenlet of this module, as opposed to one of SQLAlchemy's own."""

    __sqlalchemy_greenlet_provider__ = True  # await_only() works in it


async def greenlet_spawn(
    function: Callable[..., T],
    *args: Any,
    _require_await: bool = False,
    _to_end: bool = False,
    **kwargs: Any,
) -> T:
    """Run ``function`` as SQLAlchemy's function of the same name does, in a reused greenlet.

    ``_require_await`` has no effect: it would raise if nothing was awaited, which indicates a
    driver that blocks the loop. For ``_to_end`` see :func:`run_to_end`.
    """
    # Runner.take() and finish() are inlined, since each read runs this three times. Nor is there a
    # call between two steps: where the stack has no room left for `await step`, it has none for
    # that, and a greenlet that waits for its next step for ever keeps its connection: a variable
    # of SQLAlchemy's await_only() refers to it, and a suspended greenlet is not garbage.
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
            runner.parent = getcurrent()  # like comes_back_here()
            step = runner.throw(*sys.exc_info())
        else:
            runner.parent = getcurrent()
            step = runner.switch(value)
    if outcome.error or outcome.last or len(runners) >= MOST_IDLE:
        try:
            return runner.finish()  # type: ignore[no-any-return]
        finally:
            outcome.error = None  # its traceback refers to this frame, and so to the greenlet
    runner.gr_context = None
    runners.append(runner)
    result: T
    result, outcome.result = outcome.result, None
    return result


# A partial adds no frame of its own; this runs at the end of each block.
run_to_end = partial(greenlet_spawn, _to_end=True)
"""Run a function as :func:`greenlet_spawn` does, to its end even if the task is cancelled.

If it awaits anything, it continues in a separate task, and a cancellation is raised once that task
has ended, with or without an error. If it awaits nothing, it ends at once and cannot be cancelled.
"""


@final
class _Rest:
    """The rest of a greenlet's function, which runs in a task of its own."""

    task: asyncio.Task[Any] | None = None
    began = False
    withdrawn = False  # no task could be created for it: it runs elsewhere

    async def end(self, runner: Spawned, step: _Step) -> Any:
        """Run the rest, even if the running task is cancelled."""
        task = self.task = asyncio.ensure_future(self._go_on(runner, step))
        cancelled = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        began = self.began
        if not began:  # that task was cancelled, too: the loop is ending
            await self._go_on(runner, step)
        if cancelled is not None:
            raise cancelled from None if task.cancelled() else task.exception()
        return task.result() if began else None

    async def _go_on(self, runner: Spawned, step: _Step) -> Any:
        """Await for the greenlet until its function ends; return or raise the outcome."""
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
