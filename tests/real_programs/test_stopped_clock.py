"""Tests of an application that stop its clock, as freezegun does: waits use the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from tests.helpers import turn_of, until_waiting
from tests.stopped_clock import stop_clock

from .doors import Application, Door, outside

INSERT = text("INSERT INTO items VALUES (1)")
COUNT = "SELECT count(*) FROM items"


@pytest.fixture
async def app(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE items (id INTEGER)")
    return app


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not caplog.records


async def insert(app: Application) -> None:
    async with app.transaction() as session:
        await session.execute(INSERT)


async def laps(number: int = 20) -> None:
    """Let the loop find timers that are overdue by its clock."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("quiet")
async def test_everything_meanwhile(app: Application) -> None:
    with stop_clock():
        for _ in range(3):
            await insert(app)
        async with app.session() as session:
            await session.execute(INSERT)
            assert await session.scalar(text(COUNT)) == 4
    await insert(app)
    assert await app.value(COUNT) == 4


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("entered", ["before", "meanwhile"])
async def test_a_lock_of_another_program(app: Application, entered: str) -> None:
    """The task waits until the lock is free, and no longer."""
    with outside(app.path) as other, ExitStack() as stack:
        other.execute("BEGIN IMMEDIATE")
        if entered == "before":
            stack.enter_context(stop_clock())
        writing = asyncio.ensure_future(insert(app))
        await asyncio.to_thread(threading.Event().wait, 0.02)
        if entered == "meanwhile":
            stack.enter_context(stop_clock())
            await asyncio.to_thread(threading.Event().wait, 0.02)
        assert not writing.done()
        other.execute("COMMIT")
        await writing
    assert await app.value(COUNT) == 1


@asynccontextmanager
async def _held(app: Application) -> AsyncIterator[None]:
    async with app.transaction() as session:
        await session.execute(INSERT)
        yield


async def _waits(door: Door) -> None:
    if not door.stock:
        await until_waiting(1, turn_of(door.path))


@pytest.mark.usefixtures("quiet")
async def test_a_turn_that_is_waited_for(app: Application, door: Door) -> None:
    """This holds whether the clock stops during the wait or resumes."""
    async with _held(app):
        writing = asyncio.ensure_future(insert(app))
        await _waits(door)
        with stop_clock():
            await laps()
            assert not writing.done()
    await writing
    with stop_clock():
        held = _held(app)
        await held.__aenter__()
        writing = asyncio.ensure_future(insert(app))
        await _waits(door)
    await laps()
    assert not writing.done()
    await held.__aexit__(None, None, None)
    await writing
    assert await app.value(COUNT) == 4


@pytest.mark.usefixtures("quiet")
async def test_an_open_transaction(app: Application) -> None:
    async with app.session() as session:
        await session.execute(INSERT)
        with stop_clock():
            await laps()
            await session.execute(INSERT)
        await laps()
        await session.execute(INSERT)
        await session.commit()
    assert await app.value(COUNT) == 3


async def test_a_statement_that_is_cancelled(app: Application, door: Door) -> None:
    """It is interrupted repeatedly until it ends."""
    if door.stock:
        pytest.skip("stock lets it run")
    running = threading.Event()
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000) "
        "SELECT count(*) FROM n"
    )
    with stop_clock():
        async with app.session() as session:
            reading = asyncio.ensure_future(session.execute(endless))
            await asyncio.to_thread(running.wait, 0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await insert(app)
    assert await app.value(COUNT) == 1
