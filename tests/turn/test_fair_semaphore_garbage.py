"""Permits released in the middle of another operation, for example by the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.permit import Permit
from tests.dead_loops import bury, die
from tests.helpers import until_waiting
from tests.turn.semaphores import HeldMutex, take


class Lost:
    """An object that holds a permit, and releases it when it is garbage collected."""

    def __init__(self, line: FairSemaphore) -> None:
        self._line = line
        self._permit = line.acquire_nowait()
        self._itself = self

    def __del__(self) -> None:
        assert self._permit is not None
        self._line.release(self._permit)


async def test_while_the_holders_are_looked_through() -> None:
    """At any moment, the release must not surface as an error of the requesting task."""
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


class _SentAway(Exception):  # noqa: N818 - an error that may be referred to weakly
    pass


async def test_errors_of_tasks_that_are_sent_away_are_freed_at_once() -> None:
    """The error's frames refer to the place in line, which does not refer to the error."""
    line, owner, errors = FairSemaphore(1), object(), []

    def error() -> _SentAway:
        new = _SentAway()
        errors.append(weakref.ref(new))
        return new

    permit = line.acquire_nowait()
    assert permit is not None
    waiting = [asyncio.ensure_future(line.acquire(None, owner)) for _ in range(3)]
    await until_waiting(3, line)
    gc.collect()
    gc.disable()
    try:
        line.send_away(owner, error)
        await asyncio.wait(waiting)
        assert all(isinstance(task.exception(), _SentAway) for task in waiting)
        waiting.clear()
        await asyncio.sleep(0)  # the loop refers to the last step until the lap has ended
        assert [reference() for reference in errors] == [None, None, None]
    finally:
        gc.enable()
    line.release(permit)


class _InTheMiddle:
    """A mutex that calls ``do()`` inside its first use."""

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
    """A task that waits is served, although the line is not used again."""
    line = FairSemaphore(1)
    permit = line.acquire_nowait()
    assert permit is not None
    waiting = asyncio.create_task(take(line))
    await until_waiting(1, line)
    line._mutex = _InTheMiddle(line._mutex, lambda: line.release(permit))  # type: ignore[assignment]
    assert line.acquire_for_a_moment() is None
    await asyncio.wait_for(waiting, 5)


def test_a_task_whose_loop_has_died() -> None:
    """It has left the line, and is garbage collected while this thread is inside a step."""
    line = FairSemaphore(1)

    async def wait() -> None:
        permit = line.acquire_nowait()
        assert permit is not None
        permits.append(permit)
        waiting = asyncio.current_task()
        waiting.ready.set()  # type: ignore[union-attr]
        await line.acquire(None)

    permits: list[Permit] = []
    task = die(wait)
    line.release(permits.pop())
    assert (line.held, line.waiting) == (0, 0)
    mutex, held = line._mutex, HeldMutex()
    line._mutex = held  # type: ignore[assignment]
    bury(task)
    assert not held.waited
    line._mutex = mutex
    assert asyncio.run(take(line)) is not None
