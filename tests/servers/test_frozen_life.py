"""A server that does not respond: opening, closing, connecting, and querying its position."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import DatabaseClosedError
from tests.postgresql import App, until
from tests.servers.doing import LONG, ONE, at_once
from tests.servers.freezing import A_MOMENT_SECONDS, frozen, frozen_later, nothing_left, pools, soon
from tests.servers.models import create_accounts
from tests.servers.test_frozen import DOORS

HELD = ("db.write()", "db.read()", "the reader engine")


async def test_open_fails_soon(app: App) -> None:
    """open() on a frozen primary raises an OperationalError that names it, within seconds."""
    db = app.open(replicas=[])
    with frozen(app.cluster.primary):
        error = await soon(db.open())
    assert isinstance(error, OperationalError)
    await soon(db.close())


async def test_a_replica_that_is_frozen_is_down_at_the_beginning(app: App) -> None:
    """open() continues without it, reads use the primary, and the replica once it answers again."""
    replica = app.cluster.replicas[0]
    with frozen(replica):
        db = app.open(replicas=app.replica_urls[:1])
        assert await soon(db.open()) is None
        async with db.read() as session:
            port = await session.scalar(text("SELECT current_setting('port')::int"))
            assert port == app.cluster.primary.port
    await until(lambda: db.statistics().servers[0].up)
    assert await soon(db.close()) is None


async def test_the_application_s_own_limit_wins(app: App) -> None:
    """A connect time-out that the application passes takes precedence."""
    own: dict[str, Any] = {"asyncpg": {"timeout": 0.2}, "psycopg": {"connect_timeout": 2}}
    loop = asyncio.get_running_loop()
    db = app.open(replicas=[], connect_args=own[app.driver])
    with frozen(app.cluster.primary):
        began = loop.time()
        assert isinstance(await soon(db.open()), OperationalError)
        assert loop.time() - began < 4
    await db.close()


async def test_no_server_at_all(app: App) -> None:
    """If nothing listens, an OperationalError names the server, with each driver."""
    nowhere = app.url().set(port=1)
    async with app.open(replicas=[nowhere]) as db:
        failure = db.statistics().servers[0].failure
        assert failure is not None
        assert "127.0.0.1" in failure
    db = type(db)(nowhere)
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1"):
        await db.open()
    await db.close()


async def test_a_cancellation_ends_connecting(app: App) -> None:
    """The cancellation leaves no connection, no permit, and no task."""
    db = await app.open(replicas=[]).open()
    async with nothing_left(db):
        await db.writer_engine.dispose()
        with frozen(app.cluster.primary):
            task = asyncio.create_task(at_once(db))
            await until(lambda: len(pools(db)[0].servers[0].openings))
            task.cancel()
            assert isinstance(await soon(task), asyncio.CancelledError)
    await db.close()


async def test_close_ends_connecting(app: App) -> None:
    """A task that is connecting when the database is closed gets the error at once."""
    db = await app.open(replicas=[]).open()
    async with nothing_left(db):
        await db.writer_engine.dispose()
        with frozen(app.cluster.primary):
            task = asyncio.create_task(at_once(db))
            await until(lambda: len(pools(db)[0].servers[0].openings))
            assert await soon(db.close(timeout=0), A_MOMENT_SECONDS) is None
            assert isinstance(await soon(task, 1.0), DatabaseClosedError)


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("executing", [False, True], ids=["idle", "executing"])
async def test_close_ends_what_a_frozen_server_holds(
    app: App, name: str, executing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """close() returns soon, the tasks get errors or continue, and no permit or task is left."""
    db = await app.open(replicas=app.replica_urls[:1]).open()
    holds, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with DOORS[name](db) as session:
            await session.execute(ONE)
            if executing:
                holds.set()
                await session.execute(LONG)
            holds.set()
            await release.wait()

    async with nothing_left(db):
        with frozen_later(*app.cluster.servers) as freeze:
            holding = asyncio.create_task(hold())
            await holds.wait()
            freeze()
            assert await soon(db.close(timeout=0)) is None
            release.set()
            await soon(holding)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


async def test_close_with_connections_at_rest(app: App) -> None:
    """The connections to a frozen server are closed concurrently, not one after the other."""
    db = await app.open(replicas=app.replica_urls, readers=4).open()
    sessions = [db.sessionmaker(role="reader") for _ in range(8)]
    for session in sessions:
        await session.execute(ONE)
    for session in sessions:
        await session.close()
    with frozen(*app.cluster.servers):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await soon(db.close()) is None
        assert loop.time() - began < 4


async def test_reads_go_elsewhere(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """One read waits for a frozen replica; afterwards it is down until it responds again."""
    replica = app.cluster.replicas[0]
    port = text("SELECT current_setting('port')::int")
    async with app.open(replicas=app.replica_urls[:1]) as db:
        async with db.read() as session:
            assert await session.scalar(port) == replica.port
        with frozen(replica):

            async def read() -> int | None:
                async with db.read() as session:
                    found: int | None = await session.scalar(port)
                    return found

            assert isinstance(await soon(asyncio.wait_for(read(), 0.2)), asyncio.TimeoutError)
            assert await asyncio.wait_for(read(), 5) == app.cluster.primary.port
            assert any("does not respond" in record.getMessage() for record in caplog.records)
        await until(lambda: db.statistics().servers[0].up)
        assert await read() == replica.port


async def test_a_question_how_far_it_is(app: App) -> None:
    """A replica that does not report its position delays a read for a moment, not longer."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        await create_accounts(db)
        async with nothing_left(db):
            with frozen(app.cluster.replicas[0]):
                async with db.fresh():
                    await at_once(db)

                    async def read() -> object:
                        async with db.read() as session:
                            return await session.scalar(text("SELECT pg_is_in_recovery()"))

                    assert await asyncio.wait_for(read(), 5) is False
            await until(lambda: db.statistics().servers[0].up)


async def test_a_cancellation_ends_a_fresh_block(app: App) -> None:
    """Its exit queries no server, to avoid a wait in line: only the primary satisfies the token."""
    tokens: list[Any] = []
    async with app.open(replicas=app.replica_urls[:1], readers=1) as db, nothing_left(db):

        async def work(has_read: asyncio.Event) -> None:
            async with db.fresh() as seen:
                tokens.append(seen)
                async with db.read() as session:
                    await session.execute(ONE)
                has_read.set()
                await asyncio.Event().wait()

        has_read = asyncio.Event()
        task = asyncio.create_task(work(has_read))
        await has_read.wait()
        async with db.read() as session:
            await session.execute(ONE)
            task.cancel()
            assert isinstance(await soon(task), asyncio.CancelledError)
    assert tokens[0].token == "FFFFFFFF/FFFFFFFF"
