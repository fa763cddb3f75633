"""The tasks of one event loop: they are started, cancelled and judged; no wait is unbounded."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from .doors import Door
from .moments import Moment, near_of_next_task, soon_again
from .oracle import Ledger, tokens_of_next_task
from .table import Operation

T = TypeVar("T")
OnProgress = Callable[[int], object]
"""Called with the number of cancellations since the last call, from any thread."""

TASKS = 12
BATCH_SECONDS = 60
REST_SECONDS = 30
_END_SECONDS = 20


@dataclass(frozen=True)
class Load:
    """The operations, and the moments of cancellation. ``strict``: any error is a failure."""

    doors: tuple[str, ...]
    choose: Callable[[list[Door]], list[Operation]]
    moment: Moment
    strict: bool = True


class Tasks:
    """Some tasks of the running loop, and their outcomes."""

    def __init__(self, load: Load, ledger: Ledger, on_progress: OnProgress) -> None:
        self._load = load
        self._ledger = ledger
        self._on_progress = on_progress
        self.cancelled: Counter[str] = Counter()  # by the name of the operation
        self.errors: Counter[str] = Counter()  # by type, if they are not failures

    async def cancel(self, operations: list[Operation], count: int, seed: str) -> None:
        """Start and cancel tasks until ``count`` or slightly more have been cancelled."""
        await self._until(lambda: self.cancelled.total() >= count, operations, seed)

    async def _until(
        self, enough: Callable[[], bool], operations: list[Operation], seed: str
    ) -> None:
        rngs = [Random(f"{seed} {number}") for number in range(TASKS)]
        works = [asyncio.ensure_future(self._work(enough, operations, rng)) for rng in rngs]
        await all_within(BATCH_SECONDS, works)

    async def _work(
        self, enough: Callable[[], bool], operations: list[Operation], rng: Random
    ) -> None:
        weights = [operation.weight for operation in operations]
        while not enough():
            operation = rng.choices(operations, weights)[0]
            await self._cancel_one(operation, rng)

    async def _cancel_one(self, operation: Operation, rng: Random) -> None:
        way, begin = rng.choice(list(operation.ways.items()))
        near, tokens = near_of_next_task(), tokens_of_next_task()
        task = asyncio.create_task(begin(self._ledger, rng), name=f"{operation.name}, {way}")
        await self._load.moment(task, near, rng)
        if cancelled := task.cancel():
            self.cancelled[operation.name] += 1
            self._on_progress(1)
            if rng.random() < 0.25:
                await soon_again(task, rng)
                task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            assert cancelled, f"{task.get_name()}: CancelledError without a cancel()"
        elif error := task.exception():
            self.errors[type(error).__name__] += 1
            self._judge(error, task.get_name(), tokens)

    def _judge(self, error: BaseException, name: str, _tokens: list[int]) -> None:
        """Accept a cancellation or success of a task; any other outcome is wrong."""
        if self._load.strict:
            raise AssertionError(f"{name}: {error!r}") from error


# -- loops --------------------------------------------------------------------------------------


def run_in_loop(main: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Do the same as ``asyncio.run`` in a new loop, but abandon tasks that hang."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(cancel_others())
        loop.close()


async def cancel_others() -> None:
    """Cancel all other tasks; abandon those that do not end soon."""
    others = other_tasks()
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_END_SECONDS)


def other_tasks() -> set[asyncio.Task[Any]]:
    """Return all tasks of the running loop except the current one."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


# -- bounded waits ------------------------------------------------------------------------------


async def until_nothing(left: Callable[[], Iterator[str]]) -> None:
    """Wait until nothing is left; SQLAlchemy shields closes in tasks that may still be running."""
    give_up = time.monotonic() + REST_SECONDS
    while found := list(left()):
        assert time.monotonic() < give_up, "left: " + "\n".join(found)
        await asyncio.sleep(0)


async def all_within(seconds: float, tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Await the tasks; raise the first error of a task, or the stacks of all that hang."""
    done, late = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        await task
    assert not late, f"not done after {seconds} s:\n{stacks(asyncio.all_tasks())}{_threads()}"


def stacks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return the stacks of the tasks."""
    text = io.StringIO()
    for task in tasks:
        task.print_stack(file=text)
    return text.getvalue()


def _threads() -> str:
    """Return the stacks of the other threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    )
