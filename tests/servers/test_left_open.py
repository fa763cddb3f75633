"""A transaction that SQLAlchemy leaves open on a connection is ended before the next checkout."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text

from sa_sqlite_pool.servers.database import ServerDatabase
from tests.helpers import end_beside_a_lost_stream
from tests.postgresql import App
from tests.servers.models import Account, create_accounts

BALANCE = select(Account.balance).where(Account.id == 1)


async def write(db: ServerDatabase) -> None:
    async with db.write() as session:
        (await session.get_one(Account, 1)).balance = 7


def all_at_rest(db: ServerDatabase) -> list[Any]:
    pool: Any = db.reader_engine.pool
    return [record for server in pool.servers for record in server.at_rest]


async def test_a_listener_that_raises_at_commit(app: App) -> None:
    """The write whose commit it has prevented is not committed by the next checkout."""
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
    """The application has asked for this; the turn is released all the same."""
    async with app.open(pool_reset_on_return=None) as db:
        await create_accounts(db)
        for _ in range(2):
            connection = await db.writer_engine.connect()
            await connection.execute(text("UPDATE accounts SET balance = 7"))
            await connection.close()
        assert app.sql("SELECT balance FROM accounts WHERE id = 1") == "0"


async def test_a_rollback_that_fails(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica may cancel even a rollback: its connection is closed, but the read succeeds."""
    failed: list[object] = []
    async with app.open(replicas=app.replica_urls[:1]) as db, db.fresh():
        await create_accounts(db)
        async with db.read() as session:
            assert await session.scalar(BALANCE) == 0
            adapted = (await (await session.connection()).get_raw_connection()).dbapi_connection
            dbapi = db.reader_engine.dialect.loaded_dbapi

            def fails(connection: object) -> None:
                monkeypatch.undo()
                failed.append(connection)
                raise dbapi.OperationalError("canceling statement due to conflict with recovery")

            monkeypatch.setattr(type(adapted), "rollback", fails)
        assert failed == [adapted]
        assert adapted not in [one.dbapi_connection for one in all_at_rest(db)]
        async with db.read() as session:
            assert await session.scalar(BALANCE) == 0


@pytest.mark.parametrize("gives_up", [True, False])
async def test_a_question_that_a_replica_gives_up(
    app: App, monkeypatch: pytest.MonkeyPatch, gives_up: bool
) -> None:
    """It is repeated, and the replica counts as up; after other errors, it counts as down."""
    async with app.open(replicas=app.replica_urls[:1], freshness_wait=5.0) as db:
        await create_accounts(db)
        pool: Any = db.reader_engine.pool
        rows, asked = type(pool.driver).rows, 0

        def asks(driver: Any, connection: Any, sql: str) -> Any:
            nonlocal asked
            if "pg_is_in_recovery" in sql:
                asked += 1
                if asked == 1:
                    error: Any = db.reader_engine.dialect.loaded_dbapi.OperationalError("given up")
                    error.sqlstate = "40001" if gives_up else "57P01"
                    raise error
            return rows(driver, connection, sql)

        monkeypatch.setattr(type(pool.driver), "rows", asks)
        async with db.fresh():
            await write(db)
            async with db.read() as session:
                assert await session.scalar(BALANCE) == 7
        assert (db.statistics().servers[0].times_down == 0) == gives_up


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # they say so, too
async def test_a_stream_that_lost_its_client_is_not_waited_for(app: App) -> None:
    """The lost stream is found, and its connection returned."""
    async with app.open() as db:
        await create_accounts(db)
        await end_beside_a_lost_stream(db.read, BALANCE, lambda: db.close(60))
