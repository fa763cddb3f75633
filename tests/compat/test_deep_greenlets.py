"""Greenlets that begin, or are resumed, near the end of the stack."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest
from greenlet import greenlet
from sqlalchemy.util import await_only

from sa_sqlite_pool.compat.greenlets import Spawned, greenlet_spawn, run_to_end
from sa_sqlite_pool.compat.runners import Runner
from tests.helpers import end_idle

T = TypeVar("T")

# Stack frames that are left when a test begins.
_ROOM = 200


class Own(Runner):
    """Runners of these tests."""


class Thing:
    """An object that supports weak references."""


@pytest.fixture(autouse=True)
def none_idle() -> Iterator[None]:
    for cls in (Own, Spawned):
        end_idle(cls)
    yield
    end_idle(Spawned)


def frames_here() -> int:
    frame, count = sys._getframe(1).f_back, 1
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the number of existing frames, which makes it quick to try each depth."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's hook fails there
    before = sys.getrecursionlimit()
    yield frames_here() + _ROOM
    sys.setrecursionlimit(before)


def below(frames: int, use: Callable[[], T]) -> T:
    return below(frames - 1, use) if frames else use()


async def below_in_task(frames: int, use: Callable[[], Awaitable[T]]) -> T:
    return await (below_in_task(frames - 1, use) if frames else use())


def begin_and_end() -> Own:
    runner = Own.take()
    assert runner.switch(int, (), {}) is runner.outcome
    runner.finish()
    return runner


def quarter() -> int:
    return sys.getrecursionlimit() // 4


def test_one_that_begins_deep_is_used_once() -> None:
    """It would leave too little stack to all its later functions."""
    runner: Own = below(quarter(), begin_and_end)
    assert runner.dead
    assert Own.idle.runners == []


def test_one_that_begins_elsewhere_is_kept() -> None:
    runner: Own = below(quarter() - frames_here() - 20, begin_and_end)
    assert not runner.dead
    assert Own.idle.runners == [runner]
    assert below(quarter(), begin_and_end) is runner  # used deep in the stack, or not
    assert Own.idle.runners == [runner]


def test_the_frames_of_those_that_wait_count() -> None:
    """A greenlet has few frames of its own, and counts those of the place where it began."""
    runner = below(quarter(), lambda: greenlet(begin_and_end).switch())
    assert runner.dead
    runner = greenlet(begin_and_end).switch()
    assert not runner.dead
    assert Own.idle.runners == [runner]


async def test_a_task_for_the_rest_that_is_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs later, when the greenlet has another function, which it does not affect."""
    made: list[asyncio.Future[Any]] = []

    def ensure_future(work: Any) -> None:
        made.append(asyncio.get_running_loop().create_task(work))
        raise RecursionError

    def wait() -> object:
        return await_only(answer)

    answer = asyncio.get_running_loop().create_future()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "ensure_future", ensure_future)
        with pytest.raises(RecursionError):
            await run_to_end(wait)
    another = asyncio.create_task(greenlet_spawn(wait))
    await asyncio.sleep(0)
    assert made[0].done()
    assert not another.done()
    answer.set_result("answer")
    assert await another == "answer"


# The interpreter reports unfinished work at such a depth where it is freed.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spawn", [greenlet_spawn, run_to_end])
@pytest.mark.parametrize("catches", [False, True])
async def test_none_is_lost_at_the_end_of_the_stack(
    limit: int, spawn: Callable[..., Awaitable[Any]], catches: bool
) -> None:
    """Wherever the stack ends, the error is raised in the function, and the greenlet is reused.

    A function that waited for its answer for ever would keep its resources, for example a
    connection; and an error left in the greenlet would be raised in its next function.
    """
    before = sys.getrecursionlimit()
    things: list[weakref.ref[Thing]] = []

    async def answer() -> None:
        await asyncio.sleep(0)

    async def ask() -> None:
        await answer()

    def function() -> str:
        thing = Thing()
        things.append(weakref.ref(thing))
        try:
            await_only(ask())
        except RecursionError:
            if not catches:
                raise
        return "ended"

    began, failures = True, 0
    frames = _ROOM // 2
    while began:
        things.clear()
        sys.setrecursionlimit(limit)
        try:
            assert await below_in_task(frames, partial(spawn, function)) == "ended"
        except RecursionError:
            failures += 1
        finally:
            sys.setrecursionlimit(before)
        began = bool(things)
        # The stack may have been enough for a task that ends it, but not for waiting for the task.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        gc.collect()
        assert [reference() for reference in things] == [None] * len(things), frames
        assert await spawn(str) == ""
        frames += 1
    assert failures
