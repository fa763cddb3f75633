"""A ServerDatabase that was closed may be opened again, even in another event loop."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, text

from sa_sqlite_pool import DatabaseClosedError
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, until
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
