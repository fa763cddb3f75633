"""``engine.dispose()``: connections checked out, connections at rest, and forked children."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import ServerDatabase, StatementTimeout
from tests.cancelling import cancelled_at
from tests.postgresql import App
from tests.servers.doing import LONG, ONE
from tests.servers.freezing import frozen, nothing_left, pools, soon

PID = text("SELECT pg_backend_pid()")


def engines(db: ServerDatabase) -> tuple[AsyncEngine, AsyncEngine]:
    return db.writer_engine, db.reader_engine


async def backend(engine: AsyncEngine) -> int:
    """Return the server process id of a connection, which is at rest afterwards."""
    async with engine.connect() as connection:
        return int(await connection.scalar(PID) or 0)


async def test_a_pool_left_alone_shares_nothing(app: App) -> None:
    """It shares neither connections at rest nor the line for them with the pool replacing it."""
    options = {"write_timeout": 2, "read_timeout": 2, "readers": 1}
    async with app.open(replicas=app.replica_urls[:1], **options) as db:
        for engine in engines(db):
            before, opened = await backend(engine), db.statistics().servers[-1].connections.opened
            left = engine.pool
            await engine.dispose(close=False)
            after = {await backend(engine) for _ in range(3)}
            assert len(after) == 1
            assert before not in after
            assert db.statistics().servers[-1].connections.opened >= opened
            await greenlet_spawn(left.dispose)
        for pool in pools(db):
            assert pool.checkedout() == 0
            assert all(server.in_use == 0 for server in pool.servers)


async def test_what_is_checked_out_goes_back_to_where_it_is_from(app: App) -> None:
    """They return to the pool that was left alone; limits, errors and counters are unaffected."""
    async with app.open(replicas=app.replica_urls[:1], readers=1, statement_timeout=0.2) as db:
        for engine in engines(db):
            left, before = engine.pool, db.statistics()
            async with engine.connect() as connection:
                await connection.execute(ONE)
                await engine.dispose(close=False)
                assert engine.pool is not left
                with pytest.raises(StatementTimeout):
                    await connection.execute(LONG)
            assert "0 checked out, 1 at rest" in left.status()
            ended = [one.transactions for one in (db.statistics() - before).engines]
            assert sum(one.reads + one.rollbacks for one in ended) == 1
            await backend(engine)
            await greenlet_spawn(left.dispose)


async def test_a_child_process_has_connections_of_its_own(app: App) -> None:
    """SQLAlchemy's recipe for forks gives it new ones, and those of its parent are unaffected."""
    urls = [app.url(), app.replica_urls[0]]
    shown = [url.render_as_string(hide_password=False) for url in urls]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.servers.forking", *shown],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    parent, child, again = (line.split() for line in done.stdout.splitlines())
    assert parent == again
    assert set(parent).isdisjoint(child)


async def test_a_statement_after_dispose(app: App) -> None:
    """On a connection that is checked out, limits, errors and its return are unaffected."""
    async with app.open(replicas=app.replica_urls[:1], statement_timeout=0.2) as db:
        for block, engine in ((db.write, db.writer_engine), (db.read, db.reader_engine)):
            async with nothing_left(db):
                with pytest.raises(StatementTimeout, match=r"statement_timeout=0.2 s"):
                    async with block() as session:
                        await session.execute(ONE)
                        await engine.dispose()
                        await session.execute(LONG)
            assert db.statistics().engine("writer").connections.on_loan == 0
            await backend(engine)


async def test_a_cancelled_dispose_leaves_a_pool(app: App) -> None:
    """SQLAlchemy then creates no new pool: this one remains in use, and keeps its connections."""
    async with app.open(replicas=app.replica_urls[:1], readers=1) as db:
        for engine in engines(db):
            before, pool = await backend(engine), engine.pool
            was_cancelled = await cancelled_at(engine.dispose(), 1, stubborn=False)
            assert (engine.pool is pool) is was_cancelled
            after = {await backend(engine) for _ in range(3)}
            assert len(after) == 1
            assert before not in after


@pytest.mark.parametrize("role", ["writer", "reader"])
async def test_close_after_dispose(app: App, role: str) -> None:
    """It waits for connections checked out before, and closes them when its time is up."""
    db = app.open(replicas=app.replica_urls[:1], close_timeout=0.05)
    engine = db.writer_engine if role == "writer" else db.reader_engine
    disposed = asyncio.Event()

    async def work() -> None:
        async with db.sessionmaker(role=role) as session:
            await session.execute(ONE)
            await engine.dispose()
            disposed.set()
            await session.execute(LONG)

    async with db:
        task = asyncio.create_task(work())
        await disposed.wait()
        assert "1 checked out" in engine.pool.status()
    with pytest.raises(DBAPIError):
        await asyncio.wait_for(task, 5)


async def test_close_waits_for_work_after_dispose(app: App) -> None:
    """It does not close connections whose work ends in time."""
    db = app.open(replicas=[])
    disposed, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> int | None:
        async with db.read() as session:
            await session.execute(ONE)
            await db.reader_engine.dispose()
            disposed.set()
            await go_on.wait()
            found: int | None = await session.scalar(ONE)
            return found

    await db.open()
    task = asyncio.create_task(work())
    await disposed.wait()
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert task.done()
    assert await task == 1


@pytest.mark.parametrize("close", [True, False])
async def test_a_replica_that_falls_silent_after_dispose(app: App, close: bool) -> None:
    """A checkout was using it: no task monitors the replica once the database is closed."""
    replica, before = app.cluster.replicas[0], asyncio.all_tasks()
    db = await app.open(replicas=[app.url(replica)]).open()
    async with db.reader_engine.connect() as connection:
        await connection.execute(ONE)
        left = db.reader_engine.pool
        await db.reader_engine.dispose(close=close)
        with frozen(replica):
            assert await soon(connection.rollback()) is None
            assert await soon(db.close()) is None
            assert asyncio.all_tasks() == before
    await greenlet_spawn(left.dispose)


async def test_a_write_that_is_refused_after_dispose(app: App) -> None:
    """The error names the server of the connection, as before ``dispose()``."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        (replica,) = db._readers.replicas
        async with db.reader_engine.connect() as connection:
            await connection.execute(ONE)
            left = db.reader_engine.pool
            await db.reader_engine.dispose(close=False)
            with pytest.raises(OperationalError, match=f"a reader of {replica.name} cannot"):
                await connection.execute(text("SET TRANSACTION READ WRITE"))
        await greenlet_spawn(left.dispose)
