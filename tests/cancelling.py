"""A cancellation at each point where a task waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest


class Cancelling:
    """Awaits ``operation``, and cancels the task while it is suspended for the n-th time.

    With ``stubborn``, it is cancelled again at each later suspension, as by AnyIO's cancel scopes.
    """

    def __init__(self, operation: Coroutine[Any, Any, None], number: int, stubborn: bool) -> None:
        self.operation = operation
        self.number = number
        self.stubborn = stubborn
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self.operation.__await__()
        step: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            try:
                awaited = step()
            except StopIteration:
                return
            self._suspended()
            try:
                yield awaited
            except BaseException as error:
                step = self._throw(steps, error)
            else:
                step = lambda: next(steps)  # noqa: E731

    @staticmethod
    def _throw(steps: Generator[Any, Any, None], error: BaseException) -> Callable[[], Any]:
        return lambda: steps.throw(error)

    def _suspended(self) -> None:
        self.suspensions += 1
        if self.suspensions == self.number or (self.stubborn and self.suspensions > self.number):
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)


async def cancelled_at(operation: Coroutine[Any, Any, None], number: int, stubborn: bool) -> bool:
    """Return whether ``operation`` was suspended ``number`` times, and therefore cancelled."""
    cancelling = Cancelling(operation, number, stubborn)

    async def run() -> None:
        await cancelling

    await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    return cancelling.suspensions >= number


async def some_laps() -> None:
    """Let started tasks reach the point where they wait, or another thread."""
    for _ in range(30):
        await asyncio.sleep(0)


async def cancelled(work: Coroutine[Any, Any, Any]) -> None:
    """Cancel ``work`` after a while, and check that awaiting it raises the cancellation."""
    task = asyncio.ensure_future(work)
    await some_laps()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
