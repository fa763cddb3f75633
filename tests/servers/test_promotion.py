"""A replica becomes the primary: writes follow it, and tokens of lost commits mislead no read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from examples.local_postgresql import PostgreSQL, create_replica
from sa_sqlite_pool.freshness import parse_token
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, Cluster, own_cluster, until
from tests.servers.models import Account, create_accounts

PORT = text("SELECT current_setting('port')::int")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a primary that is killed later, and a replica that is promoted."""
    with own_cluster(replicas=1) as started:
        yield started


def url_of_either(app: App) -> URL:
    """Return the URL that connects to whichever of the servers is the primary."""
    url = app.url()
    return URL.create(
        url.drivername,
        url.username,
        database=url.database,
        query={
            "host": [f"127.0.0.1:{server.port}" for server in app.cluster.servers],
            "target_session_attrs": "primary",
        },
    )


async def set_balance(db: ServerDatabase, balance: int) -> int:
    """Write in a separate block; return the port of the server."""
    async with db.write() as session:
        (await session.get_one(Account, 1)).balance = balance
        return int(await session.scalar(PORT) or 0)


async def read_balance(db: ServerDatabase) -> tuple[int, int]:
    """Return the balance, and the port of the server."""
    async with db.read() as session:
        balance = (await session.get_one(Account, 1)).balance
        return balance, int(await session.scalar(PORT) or 0)


async def test_writes_follow_the_promotion(app: App) -> None:
    """With all hosts in the URL, the next write uses the new primary; tokens remain valid."""
    old, (new,) = app.cluster.primary, app.cluster.replicas
    async with ServerDatabase(url_of_either(app), replicas=[app.url(new)]) as db:
        assert f"127.0.0.1:{old.port},127.0.0.1:{new.port}/{app.database}" in repr(db)
        await create_accounts(db)
        async with db.fresh() as seen:
            assert await set_balance(db, 1) == old.port
        await until(app.cluster.caught_up)
        with pytest.raises(DBAPIError):
            async with db.write() as session:
                await session.scalar(PORT)
                old.kill()
                await session.scalar(PORT)
        new.promote()
        async with db.fresh(seen.token):
            assert (await read_balance(db))[0] == 1
            for balance in range(2, 22):
                assert await set_balance(db, balance) == new.port
                assert await read_balance(db) == (balance, new.port)


async def test_reads_that_stay_on_the_primary_follow(app: App) -> None:
    """Once the old primary is gone, neither its connections nor its known positions are used."""
    old, (new,) = app.cluster.primary, app.cluster.replicas
    async with ServerDatabase(url_of_either(app)) as db:
        await create_accounts(db)
        async with db.fresh():
            assert await set_balance(db, 1) == old.port
            assert await read_balance(db) == (1, old.port)
            await until(app.cluster.caught_up)
            old.kill()
            new.promote()
            assert await read_balance(db) == (1, new.port)
            assert await set_balance(db, 2) == new.port


async def test_a_token_of_a_commit_that_is_lost(app: App) -> None:
    """A read with it shows the present data, and later ones use replicas again, as before."""
    old, (new,) = app.cluster.primary, app.cluster.replicas
    async with ServerDatabase(url_of_either(app)) as db:
        await create_accounts(db)
        await set_balance(db, 1)
        await until(app.cluster.caught_up)
        new.stop()  # so that it does not receive the following records
        async with db.fresh() as lost:
            for _ in range(10):  # far more than the new primary will soon write
                old.sql("SELECT pg_logical_emit_message(false, 'test', ''), pg_switch_wal()")
            await set_balance(db, 2)
    old.kill()
    new.start()
    new.promote()
    replica = create_replica(new, new.directory.parent / "replica-of-new")
    try:
        await _read_with_lost_token(app, lost.token or "", new, replica)
    finally:
        replica.remove()


async def _read_with_lost_token(app: App, token: str, new: PostgreSQL, replica: PostgreSQL) -> None:
    async with ServerDatabase(url_of_either(app), replicas=[app.url(replica)]) as db:
        async with db.fresh(token) as seen:
            assert await read_balance(db) == (1, new.port)
            corrected = parse_token(seen.token or "")
            assert corrected < parse_token(token)
            await until(lambda: _reads_from(db, replica))
            assert await read_balance(db) == (1, replica.port)
        async with db.fresh(token):
            assert await set_balance(db, 3) == new.port
            assert (await read_balance(db))[0] == 3


async def _reads_from(db: ServerDatabase, server: PostgreSQL) -> bool:
    return (await read_balance(db))[1] == server.port
