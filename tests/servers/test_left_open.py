"""A transaction that SQLAlchemy leaves open on a connection ends before anybody else has that."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, event, select, text

from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App
from tests.servers.models import Account, create_accounts

BALANCE = select(Account.balance).where(Account.id == 1)


async def write(db: ServerDatabase) -> None:
    async with db.write() as session:
        (await session.get_one(Account, 1)).balance = 7


async def test_a_listener_that_raises_at_commit(app: App) -> None:
    """What it has kept from being committed is not committed by the connection's next user."""
    async with app.open() as db:
        await create_accounts(db)
        raises = [True]

        @event.listens_for(db.writer_engine.sync_engine, "commit")
        def commits(_connection: Connection) -> None:
            if raises:
                raise ValueError(raises.pop())

        with pytest.raises(ValueError, match="True"):
            await write(db)
        async with db.write() as session:
            assert await session.scalar(BALANCE) == 0
        assert app.sql("SELECT balance FROM accounts WHERE id = 1") == "0"
        await write(db)
        assert app.sql("SELECT balance FROM accounts WHERE id = 1") == "7"


async def test_a_pool_that_resets_nothing(app: App) -> None:
    """As the application has asked for; the turn goes on all the same."""
    async with app.open(pool_reset_on_return=None) as db:
        await create_accounts(db)
        for _ in range(2):
            connection = await db.writer_engine.connect()
            await connection.execute(text("UPDATE accounts SET balance = 7"))
            await connection.close()
        assert app.sql("SELECT balance FROM accounts WHERE id = 1") == "0"
