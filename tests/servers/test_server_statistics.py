"""statistics() of a ServerDatabase covers its servers, its turn and its engines."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import DatabaseClosedError, ServerDatabaseStatistics
from sa_sqlite_pool.freshness import parse_token
from tests.postgresql import App, until
from tests.servers.doing import ONE, at_once
from tests.servers.freezing import frozen
from tests.servers.models import create_accounts


async def test_what_is_counted(app: App) -> None:
    """The difference of two counts statements, transactions, checkouts and waits per engine."""
    async with app.open() as db:
        await create_accounts(db)
        before = db.statistics()
        for _ in range(3):
            await at_once(db)
        for _ in range(4):
            async with db.read() as session:
                await session.execute(ONE)
        async with db.write() as session:
            await session.execute(ONE)
            await session.rollback()
        with pytest.raises(ZeroDivisionError):
            async with db.write() as session:
                await session.execute(ONE)
                1 / 0  # noqa: B018
        done = db.statistics() - before
        writer, reader = done.engine("writer"), done.engine("reader")
        assert writer.transactions.commits == 3
        assert writer.transactions.rollbacks == 2
        assert writer.transactions.commit_seconds > 0
        assert reader.transactions.reads == 4
        assert (writer.statements.runs, reader.statements.runs) == (5, 4)
        assert {one.sql: one.runs for one in reader.statements.slowest}["SELECT 1"] == 4
        assert writer.connections.checkouts == 5
        assert sum(server.reads for server in done.servers if not server.is_primary) == 4
        assert done.servers[-1].is_primary
        assert done.server(done.name).reads == 0
        assert done.turn.waits_for_processes.at_once == 5
        assert 0 < done.seconds < before.seconds + 60
        assert done.retried == 0


async def test_what_is_now(app: App) -> None:
    """They show the holder of the turn, the tasks in line and connections on loan, also as JSON."""
    async with app.open() as db:
        async with db.write() as session:
            await session.execute(text("SELECT 'the holder'"))
            waiting = asyncio.create_task(at_once(db))
            await until(lambda: db.statistics().turn.waiting)
            found = db.statistics()
            assert found.turn.holder is not None
            assert found.turn.holder.sql == "SELECT 'the holder'"
            assert found.turn.shared
            (holder,) = found.engine("writer").holders
            assert holder.task == found.turn.holder.task
            assert found.server(found.name).connections.on_loan == 1
            assert json.loads(json.dumps(found.as_dict()))["turn"]["waiting"] == 1
        await waiting


async def test_servers_that_are_down(app: App) -> None:
    """They show whether a server is up, how long it has been down, why, and how often."""
    replica = app.cluster.replicas[0]
    with frozen(replica):
        async with app.open(connect_args=_short(app), replicas=app.replica_urls[:1]) as db:
            (down, primary) = db.statistics().servers
            assert (down.up, down.times_down, primary.up) == (False, 1, True)
            assert down.failure
            assert down.seconds_down > 0
            replica.thaw()
            await until(lambda: db.statistics().servers[0].up)
            up = db.statistics().servers[0]
            assert (up.failure, up.seconds_down, up.times_down) == (None, 0.0, 1)


async def test_a_primary_is_down_once(app: App) -> None:
    """It counts once for both engines, until one of them has connected again."""
    primary, replica = app.cluster.primary, app.cluster.replicas[0]
    async with app.open(connect_args=_short(app), replicas=app.replica_urls[:1]) as db:
        for engine in (db.reader_engine, db.writer_engine):
            await engine.dispose()
        with frozen(primary, replica):
            for block in (db.read, db.write):
                with pytest.raises(OperationalError):
                    async with block() as session:
                        await session.execute(ONE)
            down = db.statistics().servers[-1]
            assert (down.up, down.times_down) == (False, 1)
        await at_once(db)
        up = db.statistics().servers[-1]
        assert (up.up, up.failure, up.times_down) == (True, None, 1)


def _short(app: App) -> dict[str, Any]:
    return {"timeout": 0.5} if app.driver == "asyncpg" else {"connect_timeout": 2}


async def test_questions_are_no_reads(app: App) -> None:
    """Queries of a fresh() block and of open() are not counted."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        for _ in range(2):
            async with db.fresh(), db.read() as session:
                await session.execute(ONE)
        assert [server.reads for server in db.statistics().servers] == [2, 0]
        assert db.statistics().engine("reader").connections.checkouts == 2


async def test_positions(app: App) -> None:
    """They show the position a server is known to have reached, if a fresh() block queried it."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        assert db.statistics().servers[0].position is None
        async with db.fresh() as seen:
            await create_accounts(db)
            async with db.read() as session:
                await session.execute(ONE)
        position = db.statistics().server(db.statistics().name).position
        assert position is not None
        assert seen.token is not None
        assert parse_token(position) <= parse_token(seen.token)


async def test_another_thread_may_look(app: App) -> None:
    """It may do so while the event loop is blocked, and while everything is in use."""
    async with app.open(writes="serializable") as db:
        found: list[ServerDatabaseStatistics] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.001):
                found.append(db.statistics())

        looking = threading.Thread(target=look)
        looking.start()
        try:
            await asyncio.gather(*(at_once(db) for _ in range(20)))
        finally:
            stop.set()
            looking.join()
        commits = [one.engine("writer").transactions.commits for one in found]
        assert commits == sorted(commits)


async def test_a_database_that_is_not_open(app: App) -> None:
    """Its statistics() raises an error."""
    with pytest.raises(DatabaseClosedError):
        app.open().statistics()
