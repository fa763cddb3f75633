"""Greenlets that are reused."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from sqlalchemy.util import await_only

from sa_sqlite_pool.compat.greenlets import Spawned, greenlet_spawn, run_to_end
from sa_sqlite_pool.compat.runners import MOST_IDLE
from tests.conftest import Tasks
from tests.helpers import end_idle

VARIABLE = contextvars.ContextVar("variable", default="nothing")


@pytest.fixture(autouse=True)
def none_idle() -> Iterator[None]:
    """End all idle runners, so only those of the test exist."""
    end_idle(Spawned)
    yield
    end_idle(Spawned)


async def test_one_after_the_other_in_the_same() -> None:
    first, second = await greenlet_spawn(getcurrent), await greenlet_spawn(getcurrent)
    assert first is second
    assert first is not getcurrent()


async def test_at_the_same_time_in_different_ones() -> None:
    """Only a limited number of them is kept idle."""
    gate = asyncio.Event()

    def wait() -> Any:
        await_only(gate.wait())
        return getcurrent()

    tasks = [asyncio.create_task(greenlet_spawn(wait)) for _ in range(100)]
    await asyncio.sleep(0)
    gate.set()
    used = await asyncio.gather(*tasks)
    assert len(set(map(id, used))) == 100
    assert len(Spawned.idle.runners) == MOST_IDLE


async def test_arguments_and_results() -> None:
    def function(*args: int, **kwargs: int) -> object:
        return args, kwargs, await_only(asyncio.sleep(0, "slept")), await_only(asyncio.sleep(0))

    assert await greenlet_spawn(function, 1, 2, three=3) == ((1, 2), {"three": 3}, "slept", None)


async def test_errors_come_out_and_go_in() -> None:
    """Each error is raised where it is awaited, and a runner is reused after a failure."""

    async def fail() -> None:
        raise ValueError("inside")

    def function() -> None:
        try:
            await_only(fail())
        except ValueError as error:
            raise KeyError("outside") from error

    for _ in range(2):
        with pytest.raises(KeyError, match="outside") as caught:
            await greenlet_spawn(function)
        assert isinstance(caught.value.__cause__, ValueError)
    assert len(Spawned.idle.runners) == 1


@pytest.mark.parametrize("spawn", [greenlet_spawn, run_to_end])
async def test_an_error_keeps_what_led_to_it(spawn: Callable[..., Awaitable[Any]]) -> None:
    """Its context is not what its caller handles, for example a failed attempt before."""

    def translate() -> None:
        try:
            raise KeyError("of the function")
        except KeyError:
            raise ValueError("another")  # noqa: B904

    with pytest.raises(ValueError, match="another") as caught:
        try:
            raise OSError("of its caller")
        except OSError:
            await spawn(translate)
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_cancellation_goes_in() -> None:
    cleaned_up: list[str] = []

    def function() -> None:
        try:
            await_only(asyncio.Event().wait())
        finally:
            await_only(asyncio.sleep(0))
            cleaned_up.append("up")

    task = asyncio.create_task(greenlet_spawn(function))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned_up == ["up"]
    assert len(Spawned.idle.runners) == 1


async def test_context_variables_are_the_tasks() -> None:
    """They are the task's, whichever task used the greenlet before."""

    def change(value: str) -> str:
        before = VARIABLE.get()
        await_only(asyncio.sleep(0))
        VARIABLE.set(value)
        return before

    async def use(value: str) -> None:
        assert await greenlet_spawn(change, value) == "nothing"
        assert VARIABLE.get() == value
        assert await greenlet_spawn(VARIABLE.get) == value

    for value in ("a", "b"):
        await asyncio.create_task(use(value))
    await asyncio.gather(use("c"), use("d"))
    assert VARIABLE.get() == "nothing"


class Thing:
    """An object that supports weak references."""


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_is_kept(fails: bool) -> None:
    """No argument, result, error or context variable is kept, and no cycle is left."""

    def function(thing: Thing) -> Thing:
        VARIABLE.set(thing)  # type: ignore[arg-type]
        if fails:
            raise ValueError(thing)
        return thing

    async def use() -> weakref.ref[Thing]:
        thing = Thing()
        try:
            assert await greenlet_spawn(function, thing) is thing
        except ValueError:
            assert fails
        return weakref.ref(thing)

    gc.disable()
    try:
        reference = await asyncio.create_task(use())
        await asyncio.sleep(0)
        assert reference() is None
    finally:
        gc.enable()


def test_each_thread_has_its_own() -> None:
    """They are freed when the thread ends."""
    used: list[weakref.ref[Any]] = []

    def run() -> None:
        used.append(weakref.ref(asyncio.run(greenlet_spawn(getcurrent))))

    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert used[0]() is not None
    run()
    gc.collect()
    assert used[1]() is None
    assert used[2]() is used[0]()


def test_a_loop_may_run_in_a_greenlet() -> None:
    """A runner that was used in a loop outside returns to its current caller."""

    def main() -> str:
        return asyncio.run(greenlet_spawn(lambda: "inside"))

    assert asyncio.run(greenlet_spawn(lambda: "outside")) == "outside"
    outer = greenlet(main)
    assert outer.switch() == "inside"
    assert outer.dead


def test_begun_in_a_greenlet_and_continued_outside() -> None:
    """This happens to an eager task that is started in a greenlet with other work to continue."""

    def function(first: int) -> int:
        return first + await_only(asyncio.sleep(0, 2)) + await_only(asyncio.sleep(0, 3))

    work = greenlet_spawn(function, 1)
    starter = greenlet(lambda: [work.send(None), getcurrent().parent.switch("elsewhere")])
    assert starter.switch() == "elsewhere"
    work.send(None)
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    assert ended.value.value == 6
    assert not starter.dead
    assert starter.switch("done")[1] == "done"


async def test_to_its_end_without_a_task(tasks: Tasks) -> None:
    """No task is created if nothing is awaited."""
    tasks.clear()
    ran: list[int] = []
    await run_to_end(lambda: ran.append(1))
    with pytest.raises(ZeroDivisionError):
        await run_to_end(lambda: 1 / 0)
    assert ran == [1]
    assert tasks == []


async def test_to_its_end_whatever_happens(tasks: Tasks) -> None:
    """It is finished despite repeated cancellations, which are raised once it has ended."""
    tasks.clear()
    gate = asyncio.Event()
    ran: list[int] = []

    def function() -> None:
        await_only(gate.wait())
        ran.append(1)

    task = asyncio.create_task(run_to_end(function))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ran == [1]
    assert len(tasks) == 2


async def test_to_its_end_with_an_error() -> None:
    def function() -> None:
        await_only(asyncio.sleep(0))
        raise ValueError("in the end")

    with pytest.raises(ValueError, match="in the end"):
        await run_to_end(function)


async def test_to_its_end_with_an_error_and_a_cancellation() -> None:
    """No error hides the cancellation."""
    gate = asyncio.Event()

    def function() -> None:
        await_only(gate.wait())
        raise ValueError("in the end")

    causes: list[BaseException | None] = []

    async def run() -> None:
        try:
            await run_to_end(function)
        except asyncio.CancelledError as error:
            causes.append(error.__cause__)  # Python 3.10 does not pass it to the waiting task
            raise

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(causes[0], ValueError)


async def test_to_its_end_where_the_loop_ends() -> None:
    """All tasks are cancelled, including the one that should finish it and has not begun."""
    ran: list[int] = []

    def function() -> None:
        await_only(asyncio.sleep(0))
        ran.append(1)

    task = asyncio.create_task(run_to_end(function))
    await asyncio.sleep(0)
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ran == [1]
