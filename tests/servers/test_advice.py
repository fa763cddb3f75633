"""PostgreSQL errors that name the way out: too late, outside of a transaction, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from examples.local_postgresql import PostgreSQL
from sa_sqlite_pool.postgresql.sqlstate import sqlstate_of
from tests.postgresql import App, until, wait_until
from tests.servers.models import create_accounts

SET = text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
SLOW = text("SELECT count(*) FROM accounts, pg_sleep(60)")


async def test_a_setting_after_the_turn(app: App) -> None:
    """The error names the way out if db.write() or an auto session has already taken the turn."""
    async with app.open(replicas=[]) as db:
        for door in (db.write(), db.sessionmaker()):
            with pytest.raises(DBAPIError, match='with writes="serializable"') as caught:
                async with door as session:
                    await session.execute(SET)
            assert sqlstate_of(caught.value) == "25001"
        async with db.read() as session:  # as the first statement, it is allowed
            await session.execute(SET)
    async with app.open(replicas=[], writes="serializable") as db:
        async with db.write() as session:
            await session.execute(SET)
        async with db.write() as session:
            options = {"isolation_level": "SERIALIZABLE", "postgresql_deferrable": True}
            await session.connection(execution_options=options)
            assert await session.scalar(text("SHOW transaction_deferrable")) == "on"


async def test_what_cannot_run_in_a_transaction(app: App) -> None:
    """The error of another statement with the same SQLSTATE names AUTOCOMMIT, which helps there."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        with pytest.raises(DBAPIError, match="AUTOCOMMIT") as caught:
            async with db.write() as session:
                await session.execute(text("VACUUM accounts"))
        assert "serializable" not in str(caught.value)
        async with db.writer_engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM accounts"))


async def test_a_conflict_with_recovery(app: App) -> None:
    """A read that a replica cancels in favour of replay raises an error; run_read() retries it."""
    replica = app.cluster.replicas[0]
    runs = 0

    def count(connection: Connection) -> int:
        nonlocal runs
        runs += 1
        sql = SLOW if runs == 1 else text("SELECT count(*) FROM accounts")
        return int(connection.scalar(sql) or 0)

    async with app.open(replicas=[app.url(replica)]) as db:
        await create_accounts(db)
        wait_until(app.cluster.caught_up)
        with _impatient(replica):
            with pytest.raises(DBAPIError, match="max_standby_streaming_delay") as caught:
                async with db.read() as session:
                    await _disturbed(app, replica, session)
            assert sqlstate_of(caught.value) == "40001"
            assert "run_write()" not in str(caught.value)
            running = asyncio.create_task(db.run_read_core(count))
            await _truncate(app, replica)
            assert await running == 0
        assert runs == 2
        assert db.statistics().retried == 1


async def _disturbed(app: App, replica: PostgreSQL, session: AsyncSession) -> None:
    running = asyncio.create_task(session.execute(SLOW))
    await _truncate(app, replica)
    await running


async def _truncate(app: App, replica: PostgreSQL) -> None:
    """Wait until the replica reads the table, and let it replay a TRUNCATE of that table."""
    reads = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await until(lambda: app.sql(reads, replica) == "1")
    app.sql("TRUNCATE accounts")


@contextmanager
def _impatient(replica: PostgreSQL) -> Iterator[None]:
    """Let ``replica`` cancel reads that conflict with replay at once, during the block."""
    replica.sql("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    replica.sql("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: replica.sql("SHOW max_standby_streaming_delay") == "0")
        yield
    finally:
        replica.sql("ALTER SYSTEM RESET max_standby_streaming_delay")
        replica.sql("SELECT pg_reload_conf()")
        wait_until(lambda: replica.sql("SHOW max_standby_streaming_delay") != "0")
