"""An event loop in its own thread, for the loop that waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from ..doors import Door, held_here
from ..tasks import other_tasks, run_in_loop, stacks, until_nothing
from .kinds import MakeLoop

T = TypeVar("T")


def in_thread(
    make_loop: MakeLoop, main: Callable[[], Coroutine[Any, Any, T]], name: str, doors: list[Door]
) -> asyncio.Future[T]:
    """Run ``main()`` and the work that it leaves, then close the loop and end the thread.

    The loop is closed when it no longer holds anything of the ``doors``. The future belongs to the
    running loop, which keeps running.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(run_in_loop(_to_the_end(main, doors), make_loop()))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(outcome)


async def _to_the_end(main: Callable[[], Coroutine[Any, Any, T]], doors: list[Door]) -> T:
    result = await main()
    await until_nothing(partial(_left_here, doors))
    await asyncio.get_running_loop().shutdown_default_executor()
    return result


def _left_here(doors: list[Door]) -> Iterator[str]:
    yield from held_here(doors)
    if tasks := other_tasks():
        yield stacks(tasks)
