"""pool_timeout: None waits without a limit, and a number for that time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tests.cancelling import some_laps
from tests.waiting import put_forward

from .doors import FACADE, STOCK, SWAP_IN, Application, Door


async def opened(door: Door, pool_timeout: float | None, **own: Any) -> Application:
    one: dict[str, Any] = {"pool_size": 1} if door.kind != FACADE else {}
    if door.kind in {STOCK, SWAP_IN}:
        one["max_overflow"] = 0
    if door.kind == FACADE:
        own["readers"] = 1
    return await door.open(own=own, pool_timeout=pool_timeout, **one)


async def hold(app: Application, *, writes: bool) -> tuple[asyncio.Task[None], asyncio.Event]:
    """Hold the only connection in a task until the event."""
    held, release = asyncio.Event(), asyncio.Event()
    engine = app.writer if writes else app.reader

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            held.set()
            await release.wait()

    task = asyncio.create_task(work())
    await held.wait()
    return task, release


@pytest.mark.parametrize("writes", [False, True], ids=["reader", "writer"])
async def test_none_waits_as_long_as_it_takes(door: Door, writes: bool) -> None:
    """It is served when the connection is returned, whatever the other time-outs are."""
    app = await opened(door, None, read_timeout=1.0, write_timeout=1.0)
    holder, release = await hold(app, writes=writes)
    waiter = asyncio.create_task((await_read, await_write)[writes](app))
    await some_laps()
    put_forward(3.0)  # less than these tests have for a program
    await some_laps()
    assert not waiter.done()
    release.set()
    await holder
    await waiter


async def await_read(app: Application) -> None:
    async with app.reader.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def await_write(app: Application) -> None:
    async with app.writer.connect() as connection:
        await connection.execute(text("SELECT 1"))


@pytest.mark.parametrize("writes", [False, True], ids=["reader", "writer"])
async def test_a_number_is_a_limit(door: Door, writes: bool) -> None:
    """After that many seconds, SQLAlchemy's TimeoutError is raised."""
    app = await opened(door, 0.1)
    holder, release = await hold(app, writes=writes)
    with pytest.raises(PoolTimeoutError):
        await (await_read, await_write)[writes](app)
    release.set()
    await holder
    await await_read(app)
