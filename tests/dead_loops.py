"""Event loops that are closed while their tasks wait, and the effect on other loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any


def die(main: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Run ``main`` until it waits for something that never happens, and close its loop.

    The task is returned, so nothing is left to the garbage collector.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())

    async def until_it_waits() -> None:
        while not ready.is_set():
            await asyncio.sleep(0)

    ready = threading.Event()
    task.ready = ready  # type: ignore[attr-defined]
    loop.run_until_complete(until_it_waits())
    loop.close()
    return task


async def wait_for_ever() -> None:
    """Wait for ever, like a task whose loop is closed."""
    task = asyncio.current_task()
    task.ready.set()  # type: ignore[union-attr]
    await asyncio.Event().wait()


def bury(task: asyncio.Task[None]) -> None:
    """Discard a task that can never end, and suppress the warnings about it."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(RuntimeError):
            task.get_coro().close()
        gc.collect()
