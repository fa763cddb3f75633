"""The tasks of one event loop: they are begun, cancelled and judged, and nothing waits for ever."""

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
    """What is done, and when it is cancelled. ``strict``: what goes wrong is a failure."""

    doors: tuple[str, ...]
    choose: Callable[[list[Door]], list[Operation]]
    moment: Moment
    strict: bool = True


class Tasks:
    """Some tasks of the running loop, and what has come of them."""

    def __init__(self, load: Load, ledger: Ledger, on_progress: OnProgress) -> None:
        self._load = load
        self._ledger = ledger
        self._on_progress = on_progress
        self.cancelled: Counter[str] = Counter()  # by the name of the operation
        self.errors: Counter[str] = Counter()  # by type, where they are no failures

    async def cancel(self, operations: list[Operation], count: int, seed: str) -> None:
        """Begin and cancel tasks until ``count`` are cancelled, or some more."""
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
        """The task was cancelled, or did what it should; any other end is wrong."""
        if self._load.strict:
            raise AssertionError(f"{name}: {error!r}") from error


# -- loops --------------------------------------------------------------------------------------


def run_in_loop(main: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """``asyncio.run`` in a new loop, but what hangs is left behind instead of waited for."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(cancel_others())
        loop.close()


async def cancel_others() -> None:
    """Whatever tasks there are; those that do not end soon are given up."""
    others = other_tasks()
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_END_SECONDS)


def other_tasks() -> set[asyncio.Task[Any]]:
    """All tasks of the running loop but the one at hand."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


# -- waits that have an end ---------------------------------------------------------------------


async def until_nothing(left: Callable[[], Iterator[str]]) -> None:
    """SQLAlchemy shields closes in tasks of their own, so what is left may be on its way."""
    give_up = time.monotonic() + REST_SECONDS
    while found := list(left()):
        assert time.monotonic() < give_up, "left: " + "\n".join(found)
        await asyncio.sleep(0)


async def all_within(seconds: float, tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Await the tasks; raise what the first of them raises, or the stacks of all that hang."""
    done, late = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        await task
    assert not late, f"not done after {seconds} s:\n{stacks(asyncio.all_tasks())}{_threads()}"


def stacks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Where the tasks are."""
    text = io.StringIO()
    for task in tasks:
        task.print_stack(file=text)
    return text.getvalue()


def _threads() -> str:
    """Where the other threads are."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    )
