"""Waits with a time limit: a cancellation is never lost, whenever it arrives."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

import sa_sqlite_pool
from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.files import site
from sa_sqlite_pool.system.waiting import Emptied, done_in_time
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, run_in_virtual_time

STEPS = range(8)  # of the loop; the work under test takes fewer


async def cancelled_at(step: int, work: Coroutine[Any, Any, object]) -> bool:
    """Cancel the task once, after ``step`` laps; return whether that was before its end."""
    task = asyncio.ensure_future(work)
    for _ in range(step):
        await asyncio.sleep(0)
    heard = task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is heard
    return heard


@pytest.mark.parametrize("step", STEPS)
async def test_a_cancellation_of_what_is_done(step: int) -> None:
    """The task is cancelled before it notices that the future is done."""
    future: Future[None] = Future()
    future.set_result(None)
    await cancelled_at(step, done_in_time(future, 30))


@pytest.mark.parametrize("step", STEPS)
async def test_a_cancellation_of_what_ends_meanwhile(step: int) -> None:
    """The future is done in the same lap of the loop."""
    future: Future[None] = Future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await cancelled_at(step, done_in_time(future, 30))


@pytest.mark.parametrize("step", STEPS)
async def test_the_first_look_at_the_file_system(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A task that is cancelled there writes nothing, and the next one finds all unchanged."""

    def at_once(function: Any) -> Future[None]:
        future: Future[None] = Future()
        future.set_result(function())
        return future

    await create_items(make_engine(SQLitePool))
    engine: AsyncEngine = make_engine(SQLitePool, placement="thread")
    monkeypatch.setattr(site, "_in_thread", at_once)

    commits: list[object] = []
    event.listen(engine.sync_engine, "commit", commits.append)

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    heard = await cancelled_at(step, write())
    assert heard or step > 3  # the thread may have done all of it between two laps
    committed = bool(commits)  # a COMMIT that was sent is awaited
    assert committed or heard
    assert await amounts(engine) == [1 if committed else 0, 0, 0]


@pytest.mark.parametrize("step", STEPS)
async def test_waiting_until_nothing_is_left(step: int) -> None:
    """The set is emptied at the same moment as the cancellation."""
    left = {1, 2}
    emptied = Emptied(left)

    def end() -> None:
        assert emptied.awaited is not None
        left.discard(1)
        emptied.tell()
        assert not emptied.awaited.done()
        left.discard(2)
        emptied.tell()
        emptied.tell()  # another thread calls it, too

    waiting = emptied.wait(30)
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, end)
    await cancelled_at(step, waiting)


def test_the_time_is_up() -> None:
    """The wait returns False, and leaves the future pending."""

    async def main() -> None:
        future: Future[None] = Future()
        began = asyncio.get_running_loop().time()
        assert not await done_in_time(future, 5.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
        assert not future.done()

    run_in_virtual_time(main())


async def test_done_in_a_thread() -> None:
    """Its error is raised where the result is retrieved."""
    future: Future[None] = Future()
    thread = threading.Thread(target=lambda: future.set_exception(OSError("full")))
    began = time.monotonic()
    thread.start()
    assert await done_in_time(future, 30)
    assert time.monotonic() - began < 30
    with pytest.raises(OSError, match="full"):
        future.result()


def test_nothing_waits_otherwise() -> None:
    """``asyncio.wait_for()`` loses a cancellation on Python 3.10 and 3.11."""
    package = Path(sa_sqlite_pool.__file__).parent
    found = [
        file.name
        for file in package.rglob("*.py")
        if re.search(r"^[^`#]*asyncio\.(wait_for|timeout)\(", file.read_text(), re.MULTILINE)
    ]
    assert found == []
