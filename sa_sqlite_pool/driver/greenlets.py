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
from typing import Any, NoReturn, TypeVar, final

from greenlet import getcurrent, greenlet

T = TypeVar("T")

# Of each thread, how many wait for work at the most: some 20 KiB each.
_MOST_IDLE = 64


@final
class _Outcome:
    """What became of the function. Handed over when there is one, instead of an awaitable."""

    __slots__ = ("error", "result")

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None

    def raise_error(self) -> NoReturn:
        error, self.error = self.error, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # with its traceback and this frame it would be a cycle


_Step = Any  # something to be awaited for the greenlet, or the outcome


@final
class _Runner(greenlet):  # type: ignore[misc]  # it has no types
    """Runs one function after the other."""

    __sqlalchemy_greenlet_provider__ = True  # await_only() works in it

    def __init__(self) -> None:
        self.outcome = _Outcome()
        super().__init__(partial(_run, self.outcome))
        self.switch()  # to where it waits for work: what it begins with, it would keep for ever

    def finish(self) -> Any:
        """Return or raise what the function did, and keep nothing of it, ready for the next."""
        self.gr_context = None
        runners = _idle.runners
        if len(runners) < _MOST_IDLE:
            runners.append(self)
        outcome = self.outcome
        if outcome.error is not None:
            outcome.raise_error()
        result, outcome.result = outcome.result, None
        return result


def _run(outcome: _Outcome) -> None:
    # Not a method of the greenlet: one whose own frames lead to it is never collected.
    while True:
        call = getcurrent().parent.switch(outcome)
        try:
            outcome.result = call()
        except BaseException as error:  # raised again where it is awaited
            outcome.error = error
        del call


@final
class _Idle(threading.local):
    def __init__(self) -> None:
        self.runners: list[_Runner] = []


_idle = _Idle()


def _begin(call: Callable[[], Any]) -> tuple[_Runner, _Step]:
    current = getcurrent()
    runners = _idle.runners
    runner = runners.pop() if runners else _Runner()
    if runner.parent is not current:
        runner.parent = current
    runner.gr_context = current.gr_context  # its context variables are the task's
    return runner, runner.switch(call)


async def _go_on(runner: _Runner, step: _Step) -> Any:
    while step is not runner.outcome:
        try:
            value = await step
        except BaseException:
            step = runner.throw(*sys.exc_info())
        else:
            step = runner.switch(value)
    return runner.finish()


def in_runner() -> bool:
    """Whether this is called in one of these greenlets, and not in SQLAlchemy's own."""
    return isinstance(getcurrent(), _Runner)


async def greenlet_spawn(
    function: Callable[..., T], *args: Any, _require_await: bool = False, **kwargs: Any
) -> T:
    """SQLAlchemy's function of that name, in a greenlet that is used again.

    ``_require_await`` has no effect: it would raise where nothing was awaited, which shows a
    driver that blocks the loop.
    """
    runner, step = _begin(partial(function, *args, **kwargs))
    result: T = runner.finish() if step is runner.outcome else await _go_on(runner, step)
    return result


async def run_to_end(function: Callable[[], object]) -> None:
    """Run it as :func:`greenlet_spawn` does, to its end whatever happens to the task meanwhile.

    Where it awaits anything, it goes on in a task of its own, and a cancellation is raised when
    that has ended, well or not. What awaits nothing is done at once, with nothing to be cancelled.
    """
    runner, step = _begin(function)
    if step is runner.outcome:
        runner.finish()
        return
    began = False

    async def rest() -> None:
        nonlocal began
        began = True
        await _go_on(runner, step)

    task = asyncio.ensure_future(rest())
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if not began:  # it was cancelled, too: the loop ends
        await _go_on(runner, step)
    if cancelled is not None:
        raise cancelled from None if task.cancelled() else task.exception()
    if began:
        task.result()
