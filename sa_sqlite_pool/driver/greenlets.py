"""Greenlets that are used again, for what SQLAlchemy runs in a new one each time.

SQLAlchemy's asyncio support runs its synchronous code in a greenlet, which ``await_only()`` leaves
and enters again. CPython gives each greenlet a stack of its own: mapped from the system at the
first call in it, and unmapped at its end (``push_chunk`` in CPython's ``Python/pystate.c``), which
takes longer than the rest of a short statement. Here a greenlet that has done its work waits for
the next, on the same thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, final

from greenlet import getcurrent, greenlet

T = TypeVar("T")

# Of each thread, how many wait for work at the most: some 20 KiB each.
_MOST_IDLE = 64

_Step = Any  # an awaitable to be awaited for the greenlet, or the greenlet itself: it is done


@final
class _Runner(greenlet):  # type: ignore[misc]  # it has no types
    """Runs one function after the other."""

    __sqlalchemy_greenlet_provider__ = True  # await_only() works in it

    _result: Any = None
    _error: BaseException | None = None

    def run(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                self._result = call()
            except BaseException as error:  # raised again where it is awaited
                self._error = error
            del call
            assert self.parent is not None
            call = self.parent.switch(self)

    def finish(self) -> Any:
        """What the function returned or raised; from now on it may be used again."""
        result, error = self._result, self._error
        self._result = self._error = None
        self.gr_context = None
        if len(_idle.runners) < _MOST_IDLE:
            _idle.runners.append(self)
        if error is not None:
            try:
                raise error
            finally:
                del error  # with its traceback and this frame it would be a cycle
        return result


@final
class _Idle(threading.local):
    def __init__(self) -> None:
        self.runners: list[_Runner] = []


_idle = _Idle()


def _begin(call: Callable[[], Any]) -> tuple[_Runner, _Step]:
    current = getcurrent()
    runner = _idle.runners.pop() if _idle.runners else _Runner()
    if runner.parent is not current:
        runner.parent = current
    runner.gr_context = current.gr_context  # its context variables are the task's
    return runner, runner.switch(call)


async def _go_on(runner: _Runner, step: _Step) -> Any:
    while step is not runner:
        try:
            value = await step
        except BaseException:
            step = runner.throw(*sys.exc_info())
        else:
            step = runner.switch(value)
    return runner.finish()


async def greenlet_spawn(
    function: Callable[..., T], *args: Any, _require_await: bool = False, **kwargs: Any
) -> T:
    """SQLAlchemy's function of that name, in a greenlet that is used again.

    ``_require_await`` has no effect: it would raise where nothing was awaited, which shows a
    driver that blocks the loop.
    """
    runner, step = _begin(partial(function, *args, **kwargs))
    result: T = runner.finish() if step is runner else await _go_on(runner, step)
    return result


async def run_to_end(function: Callable[[], object]) -> None:
    """Run it as :func:`greenlet_spawn` does, to its end whatever happens to the task meanwhile.

    Where it awaits anything, it goes on in a task of its own, and a cancellation is raised when
    that has ended. What awaits nothing is done at once, with nothing to be cancelled.
    """
    runner, step = _begin(function)
    if step is runner:
        runner.finish()
        return
    task = asyncio.ensure_future(_go_on(runner, step))
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
