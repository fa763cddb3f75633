"""Waiting with a time limit that loses no cancellation."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

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
