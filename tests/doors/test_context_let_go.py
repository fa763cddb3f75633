"""A task's context variables are freed with it, whichever timers its statements have started."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import create_async_engine
from sa_sqlite_pool.turn.deadlines import Deadlines
from tests.helpers import UPDATE_FIRST, create_items

_request: ContextVar[object] = ContextVar("_request")


class Request:
    pass


async def _run(use: Callable[[], Awaitable[object]]) -> weakref.ref[Request]:
    """Run ``use()`` in a task with a request in its context; return a weak reference to that."""
    request = Request()

    async def task() -> None:
        _request.set(request)
        await use()

    await asyncio.create_task(task())
    return weakref.ref(request)


@pytest.mark.parametrize("use", ["read", "write"])
async def test_an_engine(path: Path, use: str) -> None:
    """The watches over idle transactions and over the log continue without the task's context."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    async def read() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    await asyncio.create_task(create_items(engine))
    await engine.dispose()
    reference = await _run(read if use == "read" else write)
    await asyncio.create_task(write())  # afterwards the driver's thread, too, has seen another task
    gc.collect()
    assert reference() is None
    await engine.dispose()


async def test_a_time_limit_that_others_share() -> None:
    deadlines = Deadlines()

    def first() -> None: ...

    def second() -> None: ...

    async def add() -> None:
        deadlines.add(60.0, first)
        deadlines.add(60.0, second)
        deadlines.discard(60.0, first)

    reference = await _run(add)
    await asyncio.sleep(0)  # the loop refers to the task's last step until the lap has ended
    gc.collect()
    assert reference() is None
    deadlines.discard(60.0, second)
