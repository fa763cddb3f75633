"""Permits that come back in the middle of something else: from the garbage collector, say."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from tests.helpers import until_waiting
from tests.turn.semaphores import take


class Lost:
    """What has a permit, and gives it back where only the garbage collector finds it."""

    def __init__(self, line: FairSemaphore) -> None:
        self._line = line
        self._permit = line.acquire_nowait()
        self._itself = self

    def __del__(self) -> None:
        assert self._permit is not None
        self._line.release(self._permit)


async def test_while_the_holders_are_looked_through() -> None:
    """At whichever moment: it must not look like an error of the task that asks for the turn."""
    before, line = gc.get_threshold(), FairSemaphore(100)
    try:
        for number in range(12):
            gc.disable()
            for _ in range(10):
                Lost(line)
            gc.set_threshold(gc.get_count()[0] + number)
            gc.enable()
            line.held_by(asyncio.current_task())
            gc.collect()
            assert line.held == 0
    finally:
        gc.set_threshold(*before)
        gc.enable()


class _InTheMiddle:
    """A mutex; what is to be done within is done once."""

    def __init__(self, mutex: threading.Lock, do: Any) -> None:
        self._mutex = mutex
        self._do = do
        self.acquire = mutex.acquire
        self.release = mutex.release

    def __enter__(self) -> None:
        self._mutex.acquire()
        do, self._do = self._do, None
        if do is not None:
            do()

    def __exit__(self, *_: object) -> None:
        self._mutex.release()


async def test_while_another_asks_for_a_moment() -> None:
    """A task that has waited is served, although the line is not used again."""
    line = FairSemaphore(1)
    permit = line.acquire_nowait()
    assert permit is not None
    waiting = asyncio.create_task(take(line))
    await until_waiting(1, line)
    line._mutex = _InTheMiddle(line._mutex, lambda: line.release(permit))  # type: ignore[assignment]
    assert line.acquire_for_a_moment() is None
    await asyncio.wait_for(waiting, 5)
