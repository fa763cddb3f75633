"""Waiting with a time limit that never loses a cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sized
from concurrent.futures import Future, InvalidStateError
from typing import Any, final

from .clock import call_later, resolve
from .loop_state import call_unless_closed


async def done_in_time(future: Future[Any], seconds: float) -> bool:
    """Wait until ``future`` is done, at most ``seconds``; return whether it is.

    The outcome stays in ``future``. ``asyncio.wait_for()`` is not used: if its future is done when
    a cancellation arrives, it returns the result and swallows the cancellation, and the task
    continues (Python 3.10 and 3.11; https://github.com/python/cpython/issues/81839). A plain future
    that is already done leaves the cancellation to the task, which raises it at this await.
    """
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    timer = call_later(loop, seconds, resolve, woken)
    future.add_done_callback(lambda _: call_unless_closed(loop, resolve, woken))
    try:
        await woken
    finally:
        timer.cancel()
    return future.done()


@final
class Emptied:
    """The wait of one task at a time until ``left``, from which any thread may remove, is empty.

    After removing an element, call :meth:`tell` if ``awaited``, the task's future, is not None.
    """

    def __init__(self, left: Sized) -> None:
        self._left = left
        self.awaited: Future[None] | None = None

    def tell(self) -> None:
        """Wake the task if nothing is left. Callable from any thread."""
        if self.awaited is not None and not self._left:
            with contextlib.suppress(InvalidStateError):  # already set by another thread
                self.awaited.set_result(None)

    async def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until nothing is left; return whether nothing is."""
        future = self.awaited = Future()
        if self._left:
            await done_in_time(future, timeout)
        return not self._left
