"""Servers' positions are queried at the end of a ``fresh()`` block, but never by a wait in line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from sa_sqlite_pool import ServerDatabase
from sa_sqlite_pool.freshness import BEYOND_ALL, parse_token
from sa_sqlite_pool.servers.connections.server import Server
from sa_sqlite_pool.servers.replicas import ReplicaPool
from tests.postgresql import App, until
from tests.servers.doing import ONE
from tests.servers.models import Account, create_accounts

SOON_SECONDS = 5


@contextmanager
def in_use(*servers: Server) -> Iterator[None]:
    """Hold all connections to ``servers`` in this task during the block."""
    permits: list[Any] = []
    for server in servers:
        while (permit := server.line.acquire_nowait()) is not None:
            permits.append(permit)
    try:
        yield
    finally:
        for permit in permits:
            permit.line.release(permit)


def readers(db: ServerDatabase) -> ReplicaPool:
    pool: Any = db.reader_engine.pool
    assert isinstance(pool, ReplicaPool)
    return pool


async def test_a_replica_without_a_free_connection(app: App) -> None:
    """The primary is queried instead, and the token is one that replicas satisfy."""
    async with app.open(replicas=app.replica_urls[:1], readers=2) as db:
        await create_accounts(db)
        await until(app.cluster.caught_up)
        asked = text("SELECT pg_last_wal_replay_lsn()::text")
        async with db.fresh() as seen:
            async with db.read() as session:
                shown = await session.scalar(asked)
            with in_use(*readers(db).replicas):
                await asyncio.wait_for(seen.settle(), SOON_SECONDS)
        assert shown is not None
        assert parse_token(shown) <= seen.position < BEYOND_ALL
        assert seen.read_from == {}


async def test_no_server_with_a_free_connection(app: App) -> None:
    """The token is then one that only the primary satisfies, and no task waits."""
    async with app.open(replicas=app.replica_urls[:1], readers=2) as db, db.fresh() as seen:
        async with db.read() as session:
            await session.execute(ONE)
        with in_use(*readers(db).servers):
            await asyncio.wait_for(seen.settle(), SOON_SECONDS)
        assert seen.position == BEYOND_ALL
        async with db.read() as session:
            in_recovery = await session.scalar(text("SELECT pg_is_in_recovery()"))
            assert in_recovery is False


async def test_a_free_connection_is_asked_as_before(app: App) -> None:
    """Each replica that was read from is queried, but not the primary."""
    async with app.open() as db:
        pool = readers(db)
        async with db.fresh() as seen:
            for server in pool.replicas:
                seen.note_read(server.source)
            before = pool.primary.line.waits.at_once
            await seen.settle()
        assert 0 < seen.position < BEYOND_ALL
        assert pool.primary.line.waits.at_once == before


async def test_the_primary_is_not_asked_by_a_task_that_has_its_connections(app: App) -> None:
    """The task would wait for itself, although a replica has the data."""
    async with app.open(readers=1, read_timeout=1, freshness_wait=SOON_SECONDS) as db:
        await create_accounts(db)
        pool = readers(db)
        async with db.fresh() as seen:
            for server in pool.replicas:
                seen.note_read(server.source)
            with in_use(pool.primary):
                async with db.read() as session:
                    assert (await session.get_one(Account, 1)).balance == 0
                    assert await session.scalar(text("SELECT pg_is_in_recovery()"))
