"""The details that a permit knows of its task, which it refers to weakly."""

from __future__ import annotations

import asyncio
import gc
import sys
from functools import partial
from typing import Any

import pytest

from sa_sqlite_pool.turn import permit as module
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.permit import Permit
from tests.turn.steps import Meanwhile, every_step


async def test_a_task_that_gets_its_name_later() -> None:
    """Messages use its current name."""
    line, go = FairSemaphore(), asyncio.Event()

    async def hold() -> None:
        assert line.acquire_nowait() is not None
        await go.wait()

    task = asyncio.create_task(hold(), name="worker-1")
    await asyncio.sleep(0)
    assert "'worker-1'" in line.describe_holders()
    task.set_name("order 42")
    assert "'order 42'" in line.describe_holders()
    assert line.permits[0].snapshot(0.0).task == "task 'order 42'"
    go.set()
    await task
    assert "'order 42' (which has ended" in line.describe_holders()


async def test_an_eager_task() -> None:
    """Python 3.12 and 3.13 name it after its first step."""
    if sys.version_info < (3, 12):
        pytest.skip("Python 3.12 has eager tasks")
    loop, line, go = asyncio.get_running_loop(), FairSemaphore(), asyncio.Event()

    async def hold() -> None:
        assert line.acquire_nowait() is not None
        await go.wait()

    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        task: asyncio.Task[Any] = loop.create_task(hold(), name="import-42")
    finally:
        loop.set_task_factory(None)
    assert "'import-42'" in line.describe_holders()
    go.set()
    await task


async def test_a_task_that_is_garbage() -> None:
    """It has ended, and its name is still known."""
    line = FairSemaphore()

    async def lose() -> None:
        assert line.acquire_nowait() is not None

    task = asyncio.create_task(lose(), name="import-42")
    await task
    del task
    await asyncio.sleep(0)
    gc.collect()
    (permit,) = line.permits
    assert permit.task is None
    assert permit.is_of_ended_task
    assert "'import-42' (which has ended" in line.describe_holders()


async def test_while_a_thread_is_done_with_the_task() -> None:
    """A thread may set another holder between any two steps of an inspection."""
    task = asyncio.current_task()
    for step, note in every_step():
        permit = Permit(task, 0.0)
        with Meanwhile(module.__file__, step, partial(permit.work_for, None)) as meanwhile:
            found, ended, name = permit.task, permit.is_of_ended_task, permit.task_name
        note(meanwhile)
        assert found in {task, None}
        assert not ended
        assert task is not None
        assert name in {task.get_name(), None}
