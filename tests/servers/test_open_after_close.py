"""A ServerDatabase that was closed may be opened again, even in another event loop."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from sa_sqlite_pool import DatabaseClosedError
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, until
from tests.servers.doing import ONE
from tests.servers.freezing import frozen, nothing_left, soon
from tests.servers.models import Account, create_accounts

SERVER = text("SELECT current_setting('port')::int")


async def _use(db: ServerDatabase, balance: int) -> int:
    """Write, and return the port of the server that serves the read afterwards."""
    async with db.fresh():
        async with db.write() as session:
            (await session.get_one(Account, 1)).balance = balance
        await db.run_write_core(Connection.execute, text("UPDATE accounts SET id = id"))
        assert await db.run_read(lambda session: session.get_one(Account, 1).balance) == balance
        async with db.read() as session:
            return await session.scalar(SERVER) or 0


def test_in_one_loop_after_the_other(app: App) -> None:
    """It reads from replicas each time, and nothing remains from an earlier loop."""
    db = app.open()

    async def term(number: int) -> int:
        async with nothing_left(db), db:
            if number == 0:
                await create_accounts(db)
            port = await _use(db, number)
        with pytest.raises(DatabaseClosedError, match="open it again"):
            await _use(db, -1)
        return port

    replicas = {replica.port for replica in app.cluster.replicas}
    assert {asyncio.run(term(number)) for number in range(3)} <= replicas


async def test_a_replica_that_was_down(app: App) -> None:
    """It is tried again when the database is opened, and monitored again while it is down."""
    replica = app.cluster.replicas[0]
    db = app.open(replicas=app.replica_urls[:1])
    async with db:
        await create_accounts(db)
    with frozen(replica):
        assert await soon(db.open()) is None
        assert not db.statistics().servers[0].up
        await db.close()
    async with db:
        assert await _use(db, 1) == replica.port
    with frozen(replica):
        assert await soon(db.open()) is None
        assert await _use(db, 2) == app.cluster.primary.port
    await until(lambda: db.statistics().servers[0].up)
    await db.close()


def test_a_loop_that_has_stood_still_while_it_closed(app: App) -> None:
    """Another loop has gone on closing, and opened it again: the first breaks no connection there.

    As where a test framework has one loop for a module and one for each test.
    """
    db, first, second = app.open(replicas=[]), asyncio.new_event_loop(), asyncio.new_event_loop()

    async def begin_to_close() -> AsyncSession:
        await db.open()
        session = db.sessionmaker(role="reader")
        await session.execute(ONE)
        asyncio.ensure_future(db.close(0.01))  # noqa: RUF006 - the loop ends with it
        await until(lambda: "closing" in repr(db))
        return session

    async def go_on_and_open() -> AsyncSession:
        await db.close(0)
        await db.open()
        session = db.sessionmaker(role="writer")
        await session.execute(ONE)
        return session

    async def end(session: AsyncSession) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await task
        await session.close()

    async def use(session: AsyncSession) -> None:
        assert await session.scalar(ONE) == 1
        await session.close()
        await db.close()

    before = first.run_until_complete(begin_to_close())
    again = second.run_until_complete(go_on_and_open())
    first.run_until_complete(end(before))
    second.run_until_complete(use(again))
    first.close()
    second.close()


async def test_a_connection_that_is_opened_while_it_closes(app: App) -> None:
    """It is not handed out: its task learns at once that the database is closed."""
    async with app.open(replicas=[], readers=1) as db, nothing_left(db):
        opening, go_on = asyncio.Event(), asyncio.Event()
        await db.reader_engine.dispose()

        @event.listens_for(db.reader_engine.sync_engine, "connect")
        def connect(*_: object) -> None:
            opening.set()
            await_only(go_on.wait())

        checkout = asyncio.ensure_future(_read(db))
        await opening.wait()
        closing = asyncio.ensure_future(db.close(3600))
        await until(lambda: "closing" in repr(db))
        go_on.set()
        with pytest.raises(DatabaseClosedError, match="being closed"):
            await checkout
        await closing


async def _read(db: ServerDatabase) -> None:
    async with db.read() as session:
        await session.execute(ONE)
