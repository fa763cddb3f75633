"""A ``fresh()`` block records every kind of write and read, so that no read is stale.

The replicas show each commit half a second later, so a read that does not know of one misses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sa_sqlite_pool.servers.connections.positions import end_of_record
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App
from tests.servers.models import Account, ready

DEPOSIT = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"


@pytest.fixture
def flushes_late(app: App) -> Iterator[None]:
    """Delay the flush of commits without synchronous_commit by some seconds."""
    app.cluster.primary.set(wal_writer_delay="10s", wal_writer_flush_after="0")
    yield
    app.cluster.primary.set(wal_writer_delay="200ms", wal_writer_flush_after="1MB")


async def deposit(db: ServerDatabase, before: str = "SELECT 1") -> None:
    async with db.write() as session:
        await session.execute(text(before))
        await session.execute(text(DEPOSIT))


async def balance(db: ServerDatabase) -> int:
    async with db.read() as session:
        return (await session.get_one(Account, 1)).balance


@pytest.mark.usefixtures("lag")
async def test_blocks_within_blocks(app: App) -> None:
    """A handler's block may be inside the middleware's: each sees the writes made in the other."""
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh() as outer:
            async with db.fresh() as inner:
                await deposit(db)
            assert await balance(db) == 1
            assert outer.token == inner.token is not None
        async with db.fresh():
            await deposit(db)
            async with db.fresh():
                assert await balance(db) == 2
        await deposit(db)


@pytest.mark.usefixtures("lag")
async def test_a_block_with_a_token_within_another(app: App) -> None:
    """Both see the writes that the token covers; the outer block continues after the inner one."""
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh() as elsewhere:
            await deposit(db)
        async with db.fresh():
            async with db.fresh(elsewhere.token):
                assert await balance(db) == 1
            assert await balance(db) == 1


@pytest.mark.usefixtures("flushes_late")
async def test_a_commit_that_waits_for_no_disk(app: App) -> None:
    """COMMIT returns before its record is flushed, and replicas receive only flushed records."""
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh():
            await deposit(db, "SET LOCAL synchronous_commit = off")
            assert await balance(db) == 1


@pytest.mark.usefixtures("flushes_late")
async def test_another_programs_commit_that_waits_for_no_disk(app: App) -> None:
    """It was read on the primary, and no later read goes back in time."""
    other = create_async_engine(app.url())
    async with app.open() as db:
        await ready(db, app)
        async with other.begin() as connection:
            await connection.execute(text("SET LOCAL synchronous_commit = off"))
            await connection.execute(text(DEPOSIT))
        async with db.fresh():
            async with db.write() as session:
                assert (await session.get_one(Account, 1)).balance == 1
            assert await balance(db) == 1
    await other.dispose()


async def connection_in_autocommit(db: ServerDatabase) -> None:
    async with db.writer_engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(DEPOSIT))


async def session_in_autocommit(db: ServerDatabase) -> None:
    engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await session.execute(text(DEPOSIT))


async def connection_of_the_driver(db: ServerDatabase) -> None:
    async with db.writer_engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        if db.writer_engine.dialect.driver == "psycopg":
            await driver.set_autocommit(True)
        await driver.execute(DEPOSIT)
        if db.writer_engine.dialect.driver == "psycopg":
            await driver.set_autocommit(False)


@pytest.mark.usefixtures("lag")
@pytest.mark.parametrize(
    "write", [connection_in_autocommit, session_in_autocommit, connection_of_the_driver]
)
async def test_what_is_written_without_a_transaction(
    app: App, write: Callable[[ServerDatabase], Awaitable[None]]
) -> None:
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh() as seen:
            await write(db)
            assert await balance(db) == 1
        assert seen.token is not None


@pytest.mark.usefixtures("lag")
async def test_in_autocommit_before_the_connection_is_returned(app: App) -> None:
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh(), db.writer_engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(DEPOSIT))
            assert await balance(db) == 1


def test_a_page_begins_with_a_header() -> None:
    """Replicas reach it with the next record; the previous one ends where the page begins."""
    segment = 16 * 2**20
    assert end_of_record(8192 + 24, segment) == 8192
    assert end_of_record(segment + 40, segment) == segment
    for end in (8192, 8192 + 40, segment + 48):
        assert end_of_record(end, segment) == end
