"""Servers are killed and started again: reads use other servers, and writes continue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError, OperationalError

from examples.local_postgresql import PostgreSQL, create_replica
from sa_sqlite_pool import WriteTimeout
from sa_sqlite_pool.servers.connections.server import Server
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, Cluster, own_cluster, until
from tests.servers.freezing import standing_still
from tests.servers.models import Account, create_accounts

PORT = text("SELECT current_setting('port')::int")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Start servers that may be killed."""
    with own_cluster() as started:
        yield started


@pytest.fixture(autouse=True)
def all_run(cluster: Cluster) -> Iterator[None]:
    """Start the servers that a test has killed."""
    yield
    for server in cluster.servers:
        if not server.running:
            server.start()


async def read_port(db: ServerDatabase) -> int:
    async with db.read() as session:
        return int(await session.scalar(PORT) or 0)


async def ports_of_reads(db: ServerDatabase, number: int = 6) -> set[int]:
    """Read concurrently, so that each server that serves reads gets some of them."""
    return set(await asyncio.gather(*(read_port(db) for _ in range(number))))


def ports(*servers: PostgreSQL) -> set[int]:
    return {server.port for server in servers}


def readers(db: ServerDatabase) -> tuple[Server, ...]:
    return db.reader_engine.pool.servers  # type: ignore[attr-defined,no-any-return]


async def test_reads_go_to_what_is_up(app: App) -> None:
    """Reads use the other replica, the primary if all are down, and then replicas: none fails."""
    primary, (first, second) = app.cluster.primary, app.cluster.replicas
    async with app.open() as db:
        assert await ports_of_reads(db) == ports(first, second)
        first.kill()
        assert await ports_of_reads(db) == ports(second)
        second.kill()
        assert await ports_of_reads(db) == ports(primary)
        assert "0 of 2 replicas up" in repr(db)
        first.start()
        await until(lambda: _is_read_from(db, first))
        assert await ports_of_reads(db) == ports(first)
        second.start()
        await until(lambda: _is_read_from(db, second))
        assert "2 of 2 replicas up" in repr(db)


async def _is_read_from(db: ServerDatabase, server: PostgreSQL) -> bool:
    return server.port in await ports_of_reads(db)


async def test_reads_that_go_on_meanwhile(app: App) -> None:
    """While a replica is killed and restarted, only reads that it was running may fail."""
    first, readers_each, kills = app.cluster.replicas[0], 2, 3
    async with app.open(readers=readers_each) as db:
        stop, errors = asyncio.Event(), list[DBAPIError]()

        async def read_on() -> None:
            while not stop.is_set():
                try:
                    await read_port(db)
                except DBAPIError as error:
                    errors.append(error)

        tasks = [asyncio.create_task(read_on()) for _ in range(8)]
        for _ in range(kills):
            await until(lambda: readers(db)[0].in_use)
            await asyncio.to_thread(first.kill)
            await until(lambda: not readers(db)[0].is_up)
            await asyncio.to_thread(first.start)
            await until(lambda: readers(db)[0].is_up)
        stop.set()
        await asyncio.gather(*tasks)
        assert len(errors) <= kills * readers_each
        assert all(error.connection_invalidated for error in errors)


async def test_a_block_whose_replica_dies(app: App) -> None:
    """In a fresh() block, too, the next read uses another server, and does not go back in time."""
    servers = {server.port: server for server in app.cluster.servers}
    async with app.open(freshness_wait=10) as db:
        await create_accounts(db)
        async with db.fresh() as seen:
            async with db.write() as session:
                (await session.get_one(Account, 1)).balance = 7
            for _ in app.cluster.replicas:
                servers.pop(await _read_seven(db)).kill()
            assert await _read_seven(db) == app.cluster.primary.port
        assert seen.token is not None


async def _read_seven(db: ServerDatabase) -> int:
    async with db.read() as session:
        assert (await session.get_one(Account, 1)).balance == 7
        return int(await session.scalar(PORT) or 0)


async def test_a_frozen_replica_stays_down(app: App) -> None:
    """A connection at rest to a server that does not respond is no proof that it responds again."""
    frozen = app.cluster.replicas[0]
    async with app.open(replicas=[app.url(frozen)]) as db:
        server = readers(db)[0]
        await create_accounts(db)
        await ports_of_reads(db)  # opens connections, which are at rest afterwards
        frozen.freeze()
        try:
            async with db.fresh():
                async with db.write() as session:
                    (await session.get_one(Account, 1)).balance = 7
                assert await read_port(db) == app.cluster.primary.port
            first_failure = server.outages.failure
            assert not server.is_up
            await until(lambda: server.outages.failure is not first_failure)
            assert not server.is_up
        finally:
            frozen.thaw()
        await until(lambda: server.is_up)
        assert await read_port(db) == frozen.port


async def test_a_read_that_runs_on_a_replica_that_dies(app: App) -> None:
    """It raises SQLAlchemy's error for a lost connection, and the next read uses another server."""
    first, second = app.cluster.replicas
    async with app.open() as db:
        async with db.read() as session:
            port = await session.scalar(PORT)
            dies, other = (first, second) if port == first.port else (second, first)
            dies.kill()
            with pytest.raises(DBAPIError) as caught:
                await session.scalar(PORT)
            assert caught.value.connection_invalidated
        assert await ports_of_reads(db) == ports(other)


async def test_a_restarted_replica_that_is_behind(app: App) -> None:
    """A replica's known position is discarded when it restarts: a fresh read goes elsewhere."""
    primary, (replica, _) = app.cluster.primary, app.cluster.replicas
    behind = create_replica(primary, replica.directory.parent / f"behind-{app.driver}")
    try:
        async with app.open(replicas=[app.url(replica)]) as db:
            await create_accounts(db)
            await until(Cluster(primary, (behind,)).caught_up)
            behind.stop()
            async with db.fresh():
                async with db.write() as session:
                    (await session.get_one(Account, 1)).balance = 7
                await until(lambda: _is_read_from(db, replica))
                replica.stop()
                _start_alone(behind, replica.port)
                for _ in range(2):
                    async with db.read() as session:
                        assert await session.scalar(PORT) == primary.port
                        assert (await session.get_one(Account, 1)).balance == 7
    finally:
        behind.remove()


def _start_alone(server: PostgreSQL, port: int) -> None:
    """Start a replica on another one's port, without a primary to follow."""
    with (server.data / "postgresql.auto.conf").open("a") as file:
        file.write(f"\nprimary_conninfo = ''\nport = {port}\n")
    server.port = port
    server.start()


async def test_the_primary_restarts(app: App) -> None:
    """A running write fails, as do writes meanwhile; the first one after the restart works."""
    primary = app.cluster.primary
    async with app.open() as db:
        await create_accounts(db)
        async with db.fresh() as seen, db.write() as session:
            (await session.get_one(Account, 1)).balance = 7
        with pytest.raises(DBAPIError) as caught:
            async with db.write() as session:
                await session.scalar(PORT)
                primary.kill()
                await session.scalar(PORT)
        assert caught.value.connection_invalidated
        with pytest.raises(OperationalError, match=r"cannot connect to 127\.0\.0\.1"):
            async with db.write() as session:
                await session.scalar(PORT)
        assert await ports_of_reads(db) == ports(*app.cluster.replicas)
        primary.start()
        async with db.fresh(seen.token), db.read() as session:
            assert (await session.get_one(Account, 1)).balance == 7
        async with db.fresh():
            async with db.write() as session:
                (await session.get_one(Account, 1)).balance += 1
            async with db.read() as session:
                assert (await session.get_one(Account, 1)).balance == 8


async def test_writes_after_a_restart_that_none_has_noticed(app: App) -> None:
    """Connections at rest that the server has closed are not used, so the first write works."""
    primary = app.cluster.primary
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        await ports_of_reads(db)
        primary.stop()
        primary.start()
        assert await ports_of_reads(db) == ports(primary)
        async with db.write() as session:
            (await session.get_one(Account, 1)).balance = 7


async def test_a_write_that_breaks_has_been_read(app: App) -> None:
    """In a fresh() block, no read is older than what a write read before losing its connection."""
    async with app.open() as db:
        await create_accounts(db)
        async with db.fresh():
            await until(app.cluster.caught_up)
            assert await _sees_account(db)
            with standing_still(*app.cluster.replicas):
                app.sql("UPDATE accounts SET balance = 7")
                with pytest.raises(DBAPIError):
                    async with db.write() as session:
                        assert (await session.get_one(Account, 1)).balance == 7
                        pid = await session.scalar(text("SELECT pg_backend_pid()"))
                        app.sql(f"SELECT pg_terminate_backend({pid})")
                        await session.scalar(PORT)
                async with db.read() as session:
                    assert (await session.get_one(Account, 1)).balance == 7


async def _sees_account(db: ServerDatabase) -> bool:
    async with db.read() as session:
        return await session.get(Account, 1) is not None


async def test_the_turn_is_lost_with_its_connection(app: App) -> None:
    """If the turn cannot be requested, SQLAlchemy's error is raised, and the next statement works.

    That statement runs in a new transaction, which holds the turn.
    """
    ends_others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN"
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.writer_engine.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await connection.rollback()
            app.sql(f"{ends_others} ({pid})")
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(update(Account).values(balance=1))
            assert caught.value.connection_invalidated
            await connection.execute(update(Account).values(balance=2))
            assert await connection.scalar(text(LOCKS)) == 1
            await connection.commit()
        assert app.sql("SELECT balance FROM accounts") == "2"


LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"


async def test_a_connection_whose_turn_did_not_come(app: App) -> None:
    """The next statement of a connection requests the turn again; its write is not lost."""
    async with app.open(replicas=[], write_timeout=0.1) as db, app.open(replicas=[]) as other:
        await create_accounts(db)
        async with db.writer_engine.connect() as connection:
            async with other.write() as session:
                await session.scalar(PORT)
                with pytest.raises(WriteTimeout):
                    await connection.execute(update(Account).values(balance=1))
            await connection.execute(update(Account).values(balance=2))
            assert await connection.scalar(text(LOCKS)) == 1
            await connection.commit()
        assert app.sql("SELECT balance FROM accounts") == "2"
