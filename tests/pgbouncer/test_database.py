"""ServerDatabase through PgBouncer: the turn, fresh reads, and restarts of PgBouncer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sa_sqlite_pool import WriteTimeout
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.pgbouncer.bouncer import needs_pgbouncer
from tests.pgbouncer.conftest import Pooled
from tests.servers.models import Account, create_accounts

pytestmark = needs_pgbouncer

PORT = text("SELECT current_setting('port')::int")


def deposit(session: Session, account: int = 1) -> int:
    found = session.get_one(Account, account)
    found.balance += 1
    return found.balance


def balance(session: Session, account: int = 1) -> int:
    return session.get_one(Account, account).balance


async def read_port(db: ServerDatabase) -> int:
    async with db.read() as session:
        return int(await session.scalar(PORT) or 0)


async def test_reads_and_writes_go_through(pooled: Pooled) -> None:
    """Writes use the primary; reads use the replica, with one read-only snapshot each."""
    cluster = pooled.app.cluster
    async with pooled.open() as db:
        await create_accounts(db)
        async with db.write() as session:
            assert await session.scalar(PORT) == cluster.primary.port
        async with db.read() as session:
            assert await session.scalar(PORT) == cluster.replicas[0].port
            assert await session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
            assert await session.scalar(text("SHOW transaction_read_only")) == "on"


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_no_update_is_lost(pooled: Pooled, writes: str) -> None:
    """The turn is a transaction-level lock: it holds on any connection of the transaction."""
    async with (
        pooled.open(writes=writes, attempts=1000) as db,
        pooled.open(writes=writes, attempts=1000) as other,
    ):
        await create_accounts(db)
        await asyncio.gather(*(which.run_write(deposit) for which in [db, other] * 30))
        assert pooled.app.sql("SELECT balance FROM accounts") == "60"
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert pooled.app.sql(locks) == "0"


async def test_a_turn_that_does_not_come(pooled: Pooled) -> None:
    """A time-out names the holder, and leaves no lock_timeout for others on that connection."""
    async with pooled.open(write_timeout=0.2) as db, pooled.open() as other:
        async with other.write() as session:
            await session.execute(text("SELECT 'the holder'"))
            with pytest.raises(WriteTimeout, match=r"PID \d+.*idle in transaction.*the holder"):
                async with db.write() as second:
                    await second.execute(text("SELECT 1"))
        for _ in range(10):
            async with db.write() as session:
                assert await session.scalar(text("SHOW lock_timeout")) == "0"


@pytest.fixture(params=[0, 20])
def lag(pooled: Pooled, request: pytest.FixtureRequest) -> Iterator[None]:
    """Delay commits on the replica by this number of milliseconds."""
    replica = pooled.app.cluster.replicas[0]
    replica.set(recovery_min_apply_delay=f"{request.param}ms")
    yield
    replica.set(recovery_min_apply_delay="0")


@pytest.mark.usefixtures("lag")
async def test_each_read_shows_the_write_before(pooled: Pooled) -> None:
    """A position queried on another connection to the same server is equally valid.

    Twelve tasks write and read, each with its own account, and with more clients than PgBouncer
    has connections. Some reads use the replica.
    """
    options = {"writes": "serializable", "attempts": 1000, "freshness_wait": 0.5}
    async with pooled.open(**options) as db:
        await write_and_read(db, pooled)


async def test_prepared_statements_are_followed(followed: Pooled) -> None:
    """The same works without the settings if PgBouncer tracks prepared statements."""
    replicas = [followed.url(followed.replica)]
    async with ServerDatabase(
        followed.url(), replicas=replicas, writes="serializable", attempts=1000, freshness_wait=0.5
    ) as db:
        await write_and_read(db, followed)


async def write_and_read(db: ServerDatabase, pooled: Pooled) -> None:
    pairs, tasks = 25, 12
    served: list[int] = []
    await create_accounts(db, tasks)

    async def of(account: int) -> None:
        for _ in range(pairs):
            async with db.fresh():
                written = await db.run_write(deposit, account)
                async with db.read() as session:
                    served.append(int(await session.scalar(PORT) or 0))
                    assert await session.run_sync(balance, account) == written

    await asyncio.gather(*(of(i + 1) for i in range(tasks)))
    assert served.count(pooled.app.cluster.replicas[0].port) > 0


async def test_tokens_between_databases(pooled: Pooled) -> None:
    """A block's token is valid in another process, which is another ServerDatabase here."""
    async with pooled.open() as db, pooled.open() as other:
        await create_accounts(db)
        for _ in range(40):
            async with db.fresh() as seen:
                written = await db.run_write(deposit)
            async with other.fresh(seen.token):
                assert await other.run_read(balance) == written


async def test_pgbouncer_restarts(pooled: Pooled) -> None:
    """Running work fails with SQLAlchemy's error; the next transaction works, read or write."""
    async with pooled.open() as db:
        await create_accounts(db)
        async with db.fresh():
            await db.run_write(deposit)
            assert await db.run_read(balance) == 1
            with pytest.raises(DBAPIError) as caught:
                async with db.write() as session:
                    await session.run_sync(deposit)
                    pooled.primary.kill()
                    await session.scalar(PORT)
            assert caught.value.connection_invalidated
            await asyncio.to_thread(pooled.primary.start)
            pooled.replica.kill()
            await asyncio.to_thread(pooled.replica.start)
            assert await db.run_write(deposit) == 2
            assert await db.run_read(balance) == 2


async def test_the_replicas_pgbouncer_is_down(pooled: Pooled) -> None:
    """Reads use the primary, as if the replica itself were down, and later the replica again."""
    cluster = pooled.app.cluster
    async with pooled.open() as db:
        assert await read_port(db) == cluster.replicas[0].port
        pooled.replica.kill()
        assert await read_port(db) == cluster.primary.port
        await asyncio.to_thread(pooled.replica.start)
        server = db.reader_engine.pool.servers[0]  # type: ignore[attr-defined]
        while not server.is_up:
            await asyncio.sleep(0)
        assert await read_port(db) == cluster.replicas[0].port


async def test_a_frozen_pgbouncer_before_a_replica(pooled: Pooled) -> None:
    """A fresh read that must query the replica gives up after a second; the primary serves it."""
    async with pooled.open() as db:
        await create_accounts(db)
        await read_port(db)
        pooled.replica.freeze()
        try:
            async with db.fresh():
                await db.run_write(deposit)
                assert await read_port(db) == pooled.app.cluster.primary.port
        finally:
            pooled.replica.thaw()
