"""Threads that run out of memory for a moment: their results are reported, and they continue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sa_sqlite_pool.execution.mailbox import Mailbox
from sa_sqlite_pool.execution.shared_thread import SharedThread
from sa_sqlite_pool.system.forks import rest
from sa_sqlite_pool.system.loop_state import of_running_loop
from tests.execution.workers import open_worker, outcome


class Fails:
    """Calls ``function``, but raises MemoryError the first ``times`` times in other threads."""

    def __init__(self, function: Callable[..., Any], times: int = 1) -> None:
        self._function = function
        self._loops_thread = threading.current_thread()
        self.left = times

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self.left and threading.current_thread() is not self._loops_thread:
            self.left -= 1
            raise MemoryError
        return self._function(*args, **kw)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_job_is_reported_when_there_is_memory_again(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Otherwise its task would wait for ever, its mailbox entry being mistaken for a wake-up."""
    worker = await open_worker()
    loop = asyncio.get_running_loop()
    wake = Fails(loop.call_soon_threadsafe, times)
    monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
    assert await asyncio.wait_for(outcome(worker.run(lambda _: 1)), 10) == 1
    assert wake.left == 0
    assert await asyncio.wait_for(outcome(worker.run(lambda _: 2)), 10) == 2
    await worker.close()


async def test_a_job_that_cannot_begin_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not run, its task gets the error, and the next one runs."""
    worker, ran = await open_worker(), list[int]()
    begin = Fails(rest.begin)
    monkeypatch.setattr(rest, "begin", begin)
    with pytest.raises(MemoryError):
        await asyncio.wait_for(outcome(worker.run(lambda _: ran.append(1))), 10)
    assert begin.left == 0
    await asyncio.wait_for(outcome(worker.run(lambda _: ran.append(2))), 10)
    assert ran == [2]
    await worker.close()


async def test_a_report_that_could_not_wake_the_loop_leaves_others_to_do_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mailbox does not consider the loop woken: the next report wakes it, for both."""
    box, heard, loop = of_running_loop(Mailbox), list[int](), asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_soon_threadsafe", Fails(loop.call_soon_threadsafe))

    def report() -> None:
        with pytest.raises(MemoryError):
            box.post(lambda: heard.append(1))
        box.post(lambda: heard.append(2))

    thread = threading.Thread(target=report)
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    assert heard == [1, 2]


async def test_the_shared_thread_goes_on() -> None:
    """Jobs waiting in its queue are run by it, and by nothing else."""
    clock = Fails(lambda: 0.0, 2)
    shared = SharedThread(clock=clock)
    workers = [await open_worker(shared) for _ in range(2)]
    for worker in workers:
        assert await asyncio.wait_for(outcome(worker.run(lambda _: 1, text="short")), 10) == 1
    assert clock.left == 0
    for worker in workers:
        await worker.close()
    shared.stop()
