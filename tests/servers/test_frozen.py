"""If a server does not respond, cancellations and time-outs still end, and soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import WriteTimeout
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App
from tests.servers.doing import ONE, at_once
from tests.servers.freezing import A_MOMENT_SECONDS, Barrier, frozen_later, nothing_left, soon
from tests.servers.models import create_accounts

MANY = text("SELECT generate_series(1, 100000)")

Door = Callable[[ServerDatabase], AbstractAsyncContextManager[Any]]
Freeze = Callable[[], Awaitable[None]]

DOORS: dict[str, Door] = {
    "db.write()": lambda db: db.write(),
    "db.read()": lambda db: db.read(),
    "an auto session": lambda db: db.sessionmaker(),
    "a writer session": lambda db: db.sessionmaker(role="writer"),
    "the writer engine": lambda db: db.writer_engine.connect(),
    "the reader engine": lambda db: db.reader_engine.connect(),
    "begin()": lambda db: db.writer_engine.begin(),
}


async def in_a_statement(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        await session.execute(ONE)
        await freeze()
        await session.execute(ONE)


async def idle_in_the_transaction(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        await session.execute(ONE)
        await freeze()
        await asyncio.Event().wait()


async def at_the_end_of_the_block(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        await session.execute(ONE)
        await freeze()


async def in_rollback(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        await session.execute(ONE)
        await freeze()
        await session.rollback()


async def in_commit(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        await session.execute(ONE)
        await freeze()
        await session.commit()


async def at_its_beginning(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        await session.execute(ONE)
    await freeze()
    async with door(db) as session:
        await session.execute(ONE)


async def in_a_stream(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        rows = await session.stream(MANY)
        await rows.fetchone()
        await freeze()
        async for _ in rows:
            pass


async def closing_a_stream(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        rows = await session.stream(MANY)
        await rows.fetchone()
        await freeze()
        await rows.close()


async def beside_a_stream(door: Door, db: ServerDatabase, freeze: Freeze) -> None:
    async with door(db) as session:
        rows = await session.stream(MANY)
        try:
            await rows.fetchone()
            await freeze()
            await asyncio.Event().wait()
        finally:
            await rows.close()


STATES = (
    in_a_statement,
    idle_in_the_transaction,
    at_the_end_of_the_block,
    in_rollback,
    in_commit,
    at_its_beginning,
    in_a_stream,
    closing_a_stream,
    beside_a_stream,
)


@pytest.mark.parametrize("state", STATES)
async def test_a_cancellation_ends_every_block(app: App, state: Any) -> None:
    """On a frozen server, this holds for every wait, and for every door."""
    async with app.open(
        replicas=app.replica_urls[:1], writes="serializable", writers=8, readers=8
    ) as db:
        await create_accounts(db)
        async with nothing_left(db):
            with frozen_later(*app.cluster.servers) as freeze:
                barrier = Barrier(len(DOORS), freeze)
                tasks = [
                    asyncio.create_task(state(door, db, barrier.arrive), name=name)
                    for name, door in DOORS.items()
                ]
                await barrier.passed()
                for task in tasks:
                    task.cancel()
                for task in tasks:
                    error = await soon(task, A_MOMENT_SECONDS)
                    assert isinstance(error, asyncio.CancelledError | None), (task, error)
        for door in DOORS.values():
            async with door(db) as session:
                await session.execute(ONE)


@pytest.mark.parametrize("state", STATES)
async def test_a_time_out_ends_a_turn(app: App, state: Any) -> None:
    """This includes the turn: wait_for() around db.write() raises TimeoutError, and releases it."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with nothing_left(db):
            with frozen_later(app.cluster.primary) as freeze:
                barrier = Barrier(1, freeze)
                work = state(DOORS["db.write()"], db, barrier.arrive)
                error = await soon(asyncio.wait_for(work, 0.2), A_MOMENT_SECONDS)
                assert isinstance(error, asyncio.TimeoutError | None), error
        async with db.write() as session:
            await session.execute(ONE)


async def test_a_cancellation_ends_a_wait_for_the_turn(app: App) -> None:
    """This holds even if another process holds the turn, and the server has stopped answering."""
    async with app.open(replicas=[]) as other, app.open(replicas=[]) as db:
        async with nothing_left(db), other.write() as session:
            await session.execute(ONE)
            with frozen_later(app.cluster.primary) as freeze:
                waiting = asyncio.create_task(at_once(db))
                await app.someone_waits_for("advisory")
                freeze()
                waiting.cancel()
                assert isinstance(await soon(waiting, A_MOMENT_SECONDS), asyncio.CancelledError)
        await at_once(db)


async def test_a_turn_of_a_server_that_does_not_answer(app: App) -> None:
    """The wait ends after write_timeout and a moment at most, and the error gives the reason."""
    async with app.open(replicas=[], write_timeout=0.2) as db, nothing_left(db):
        await at_once(db)
        with frozen_later(app.cluster.primary) as freeze:
            freeze()
            error = await soon(at_once(db), A_MOMENT_SECONDS)
        assert isinstance(error, WriteTimeout)
        assert "does not respond" in str(error)
        await at_once(db)
