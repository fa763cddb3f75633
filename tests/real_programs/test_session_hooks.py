"""Listeners of ``after_commit`` and ``after_rollback`` that write, in a session of their own.

The session's connection returns to its pool after them. A writer's connection is the turn until
then, so a write in the listener itself is refused; a stock engine uses another connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from sa_sqlite_pool import TurnAlreadyHeldError

from .doors import ENGINES, FACADE, Application, Door, at_once

HOOKS = ["after_commit", "after_rollback"]
ADD = text("INSERT INTO log (what) VALUES ('end')")
WAY_OUT = "its transaction has ended, but its connection has not been returned: close it first"


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE log (what TEXT)")
    return app


async def end(app: Application, hook: str, listener: Callable[[Session], Any]) -> None:
    """End a transaction that writes, with ``listener`` for its end."""
    async with app.session() as session:
        event.listen(session.sync_session, hook, listener)
        await session.execute(text("INSERT INTO log (what) VALUES ('work')"))
        await (session.commit() if hook == "after_commit" else session.rollback())


def expected(hook: str) -> list[tuple[str]]:
    return [("work",), ("end",)] if hook == "after_commit" else [("end",)]


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_listener_that_writes(door: Door, hook: str) -> None:
    """With one pool it works; a writer's connection is not returned yet, and the error says so."""
    app = await opened(door)

    def write(_session: Session) -> None:
        with Session(app.writer.sync_engine) as session, session.begin():
            session.execute(ADD)

    if door.kind in (ENGINES, FACADE):
        with pytest.raises(TurnAlreadyHeldError, match=WAY_OUT):
            await at_once(end(app, hook, write))
        assert await app.rows("SELECT what FROM log") == expected(hook)[:-1]
    else:
        await at_once(end(app, hook, write))
        assert await app.rows("SELECT what FROM log") == expected(hook)
    await at_once(app.write("INSERT INTO log VALUES ('later')"))  # nothing is kept


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_listener_that_starts_a_task(door: Door, hook: str) -> None:
    """This is the way out: the task waits in line until the connection is returned."""
    app = await opened(door)
    tasks: list[asyncio.Task[None]] = []

    async def write() -> None:
        async with app.transaction() as session:
            await session.execute(ADD)

    def start(_session: Session) -> None:
        tasks.append(asyncio.create_task(write()))

    await at_once(end(app, hook, start))
    await at_once(asyncio.wait_for(tasks[0], 3.0))
    assert await app.rows("SELECT what FROM log") == expected(hook)


async def test_a_second_connection_within_the_block_of_the_first(door: Door) -> None:
    """After a COMMIT a writer's connection still has to be returned, and the error says so."""
    app = await opened(door)
    async with app.writer.connect() as connection:
        await connection.execute(ADD)
        await connection.commit()
        if door.kind in (ENGINES, FACADE):
            with pytest.raises(TurnAlreadyHeldError, match=WAY_OUT):
                await app.write("INSERT INTO log VALUES ('second')")
        else:
            await app.write("INSERT INTO log VALUES ('second')")
    await app.write("INSERT INTO log VALUES ('third')")
    second = [] if door.kind in (ENGINES, FACADE) else [("second",)]
    assert await app.rows("SELECT what FROM log") == [("end",), *second, ("third",)]
