"""What the package relies on inside asyncio: one test for each row of ``docs/compat.md``.

A test that fails with a new Python or uvloop names the module of this package that breaks.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import weakref
from asyncio.tasks import _PyTask  # type: ignore[attr-defined]
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

VARIABLE = contextvars.ContextVar("variable", default="nothing")

# The C implementation, asyncio.Task, and the Python one, which debuggers and factories use.
TASKS = [asyncio.Task, _PyTask]


class Awaited:
    """Represents a job as ``execution/awaited.py`` does: as much of a future as a task needs."""

    _asyncio_future_blocking = False

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.callbacks: list[tuple[Callable[[Any], object], contextvars.Context]] = []
        self.cancelled_with: list[object] = []
        self.outcome: Callable[[], Any] = "result".lower

    def __await__(self) -> Generator[Any, None, Any]:
        self._asyncio_future_blocking = True
        yield self
        return self.outcome()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context
    ) -> None:
        self.callbacks.append((callback, context))

    def cancel(self, msg: object = None) -> bool:
        self.cancelled_with.append(msg)
        return True

    def result(self) -> Any:
        return self.outcome()

    async def resume(self, seen: list[Any]) -> list[Any]:
        """Resume the task as a job's report does, and return what it has ``seen`` by then."""
        ((callback, context),) = self.callbacks
        found: list[Any] = []

        def report() -> None:
            context.run(callback, self)
            found.extend(seen)

        self.loop.call_soon(report)  # outside any task: one cannot enter another
        await asyncio.sleep(0)
        return found


async def use(awaited: Awaited, seen: list[Any]) -> None:
    VARIABLE.set("the task's")
    try:
        seen.append(await awaited)
    finally:
        seen.append(VARIABLE.get())


async def begin(kind: Any, seen: list[Any]) -> tuple[Any, Awaited]:
    """Return a task that waits for an ``Awaited``, and the ``Awaited``."""
    awaited = Awaited()
    task = kind(use(awaited, seen), loop=asyncio.get_running_loop())
    await asyncio.sleep(0)
    return task, awaited


@pytest.mark.parametrize("kind", TASKS)
async def test_a_task_waits_for_what_blocks(kind: Any) -> None:
    """A task recognizes a future by ``_asyncio_future_blocking``, and clears that attribute.

    ``execution/awaited.py``: a job is awaited without a future. Its only callback resumes the task
    at once, in the context passed with it; with ``call_soon``, a hop would take another lap.
    """
    seen: list[Any] = []
    task, awaited = await begin(kind, seen)
    assert awaited._asyncio_future_blocking is False
    assert len(awaited.callbacks) == 1
    assert seen == []
    assert await awaited.resume(seen) == ["result", "the task's"]
    await task


@pytest.mark.parametrize("kind", TASKS)
async def test_an_error_is_raised_where_it_is_awaited(kind: Any) -> None:
    """The task calls ``result()`` first, and throws the error that it raises into the coroutine.

    ``execution/awaited.py``: its own ``result()`` raises nothing, so the task continues to where
    the error is raised, and knows which exception it handles there.
    """
    seen: list[Any] = []
    task, awaited = await begin(kind, seen)

    def fail() -> None:
        raise LookupError("of the job")

    awaited.outcome = fail
    await awaited.resume(seen)
    with pytest.raises(LookupError, match="of the job"):
        await task
    assert seen == ["the task's"]


@pytest.mark.parametrize("kind", TASKS)
async def test_a_cancellation_is_the_awaited_ones_business(kind: Any) -> None:
    """``task.cancel()`` calls ``cancel(msg)`` of the awaited object, and does not wake the task.

    Tasks in C pass the message by position, those in Python by name.
    ``execution/awaited.py``: the statement is stopped first, and the task wakes up after the thread
    has released it.
    """
    seen: list[Any] = []
    task, awaited = await begin(kind, seen)
    assert task.cancel("why") is True
    await asyncio.sleep(0)
    assert awaited.cancelled_with == ["why"]
    assert seen == []

    def cancelled() -> None:
        raise asyncio.CancelledError("why")

    awaited.outcome = cancelled
    await awaited.resume(seen)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("kind", TASKS)
async def test_a_bare_yield_is_one_lap(kind: Any) -> None:
    """A coroutine that yields None continues in the next lap of the loop, after all that is ready.

    ``execution/loop_budget.py``: ``Pause`` lets other tasks run in this way, without a future.
    """
    order: list[str] = []

    class Lap:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def pause() -> None:
        order.append("before")
        await Lap()
        order.append("after")

    loop = asyncio.get_running_loop()
    task = kind(pause(), loop=loop)
    loop.call_soon(order.append, "others")
    await task
    assert order == ["before", "others", "after"]


async def test_call_soon_is_in_order() -> None:
    """Callbacks run in the order of scheduling; those scheduled meanwhile run in the next lap.

    ``execution/loop_budget.py`` counts laps with a callback that runs after those of a lap.
    """
    loop, order = asyncio.get_running_loop(), list[str]()

    def first() -> None:
        order.append("first")
        loop.call_soon(order.append, "next lap")

    loop.call_soon(first)
    loop.call_soon(order.append, "second")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["first", "second", "next lap"]


async def test_a_suspended_task_leads_to_its_line() -> None:
    """``get_coro()`` and ``cr_await`` lead from a task to the innermost waiting coroutine.

    ``turn/whereabouts.py`` names the current line of the turn's holder. If the chain ends earlier,
    messages name an outer line, and nothing else changes.
    """
    gate = asyncio.Event()

    async def inner() -> None:
        await gate.wait()

    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    coroutine: Any = task.get_coro()
    assert coroutine.cr_frame.f_code is outer.__code__
    assert coroutine.cr_await.cr_frame.f_code is inner.__code__
    gate.set()
    await task
    assert coroutine.cr_frame is None


async def test_a_suspended_generator_leads_on() -> None:
    """``ag_await`` and ``ag_frame`` do the same for an asynchronous generator.

    ``turn/whereabouts.py``: for ``async with`` on a generator that waits inside.
    """
    gate = asyncio.Event()

    async def generate() -> AsyncIterator[None]:
        await gate.wait()
        yield

    generator: Any = generate()
    task = asyncio.ensure_future(generator.__anext__())
    await asyncio.sleep(0)
    assert generator.ag_frame.f_code is generate.__code__
    assert generator.ag_await is not None
    gate.set()
    await task
    await generator.aclose()


def test_the_mark_of_a_coroutine_function() -> None:
    """Before Python 3.12, ``asyncio.iscoroutinefunction()`` looks for a mark of its own.

    ``compat/coroutine_functions.py``: Starlette runs unmarked functions in a thread. From 3.12 on,
    the mark is public: ``inspect.markcoroutinefunction()``.
    """

    def function() -> None:
        """Return a coroutine, for example."""

    if sys.version_info >= (3, 12):
        assert not inspect.iscoroutinefunction(function)
        inspect.markcoroutinefunction(function)
        assert inspect.iscoroutinefunction(function)
    else:
        assert not asyncio.iscoroutinefunction(function)
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
        assert asyncio.iscoroutinefunction(function)


async def test_a_task_begins_in_the_context_where_it_is_made() -> None:
    """``create_task()`` copies the running context, even if a factory is set.

    ``compat/background.py`` creates tasks that inherit nothing, in an empty context.
    """
    VARIABLE.set("the caller's")

    async def look() -> str:
        return VARIABLE.get()

    loop = asyncio.get_running_loop()
    assert await loop.create_task(look()) == "the caller's"
    assert await contextvars.Context().run(loop.create_task, look()) == "nothing"


async def test_a_loop_can_be_referred_to_weakly() -> None:
    """A loop can be a key of a weak dictionary, by identity, while it exists.

    ``system/loop_state.py`` keeps one object for each loop.
    """
    loop = asyncio.get_running_loop()
    found = weakref.WeakKeyDictionary({loop: 1})
    assert found[asyncio.get_running_loop()] == 1
