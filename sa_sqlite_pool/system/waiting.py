"""Waiting with a time limit that loses no cancellation."""

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
    a cancellation arrives, it returns the result and drops the cancellation, so that the task goes
    on (Python 3.10 and 3.11; https://github.com/python/cpython/issues/81839). A plain future that
    is done already leaves the cancellation to the task, which raises it at this await.
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
    """The wait until ``left``, from which any thread may take, is empty: of one task at a time.

    What takes from it calls :meth:`tell` if ``awaited``, the future of that task, is not None.
    """

    def __init__(self, left: Sized) -> None:
        self._left = left
        self.awaited: Future[None] | None = None

    def tell(self) -> None:
        """Wake the task if nothing is left. Callable from any thread."""
        if self.awaited is not None and not self._left:
            with contextlib.suppress(InvalidStateError):  # set already, by another thread
                self.awaited.set_result(None)

    async def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until nothing is left; return whether it is so."""
        future = self.awaited = Future()
        if self._left:
            await done_in_time(future, timeout)
        return not self._left
