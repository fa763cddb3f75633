"""Writes in a ``fresh()`` block by the driver or a procedure are visible in the block, too.

Replicas show each commit half a second later, so a read that does not know of one misses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from sa_sqlite_pool import ServerDatabase
from sa_sqlite_pool.freshness import seen_by
from sa_sqlite_pool.servers.connections import positions
from tests.postgresql import App, until
from tests.servers.doing import questions_of
from tests.servers.models import Account, create_accounts

INSERT = "INSERT INTO accounts (id, balance) VALUES (9, 0)"


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Account)) or 0


async def driver_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def copy(connection: AsyncConnection) -> None:
    driver = await driver_of(connection)
    if connection.dialect.driver == "asyncpg":
        await driver.copy_records_to_table("accounts", records=[(9, 0)], columns=["id", "balance"])
        return
    async with driver.cursor().copy("COPY accounts (id, balance) FROM STDIN") as copying:
        await copying.write_row((9, 0))
    if not driver.autocommit:
        await driver.commit()


async def transaction_of_the_driver(connection: AsyncConnection) -> None:
    driver = await driver_of(connection)
    async with driver.transaction():
        await driver.execute(INSERT)


async def cursor_of_the_adapter(connection: AsyncConnection) -> None:
    """Commit by the adapter's cursor, like a library that takes a DB-API connection."""

    def work(synchronous: Any) -> None:
        adapted = synchronous.connection.dbapi_connection
        cursor = adapted.cursor()
        cursor.execute(INSERT)
        cursor.close()
        adapted.commit()

    await connection.run_sync(work)


async def procedure_that_fails(connection: AsyncConnection) -> None:
    with pytest.raises(DBAPIError, match="after its commit"):
        await connection.execute(text("CALL deposit()"))


PROCEDURE = f"""
CREATE PROCEDURE deposit() LANGUAGE plpgsql AS $$
BEGIN {INSERT}; COMMIT; RAISE 'after its commit'; END $$
"""

Work = Callable[[AsyncConnection], Awaitable[None]]
BY_DRIVER: list[Work] = [copy, transaction_of_the_driver, cursor_of_the_adapter]


async def prepare(db: ServerDatabase, app: App) -> None:
    await create_accounts(db)
    app.sql(PROCEDURE)
    await until(app.cluster.caught_up)


@pytest.mark.usefixtures("lag")
async def test_a_text_that_commits(app: App) -> None:
    """SQLAlchemy's asyncpg adapter does not notice it; reads see it before the block has ended."""
    async with app.open() as db:
        await prepare(db, app)
        async with db.fresh(), db.write() as session:
            await session.execute(text(INSERT))
            assert await db.run_read(count) == 1
            await session.execute(text("COMMIT"))
            assert await db.run_read(count) == 2


@pytest.mark.usefixtures("lag")
@pytest.mark.parametrize("sql", ["COMMIT AND CHAIN", "SELECT 1; COMMIT AND CHAIN"])
async def test_a_text_that_commits_and_begins_again(app: App, sql: str) -> None:
    """The previous transaction's writes are visible while the next one is open."""
    if app.driver == "asyncpg" and ";" in sql:
        pytest.skip("it executes one statement at a time")
    async with app.open() as db:
        await prepare(db, app)
        async with db.fresh(), db.write() as session:
            await session.execute(text(INSERT))
            await session.execute(text(sql))
            await session.execute(text("SELECT 1"))
            assert await db.run_read(count) == 2
            await session.execute(text("DELETE FROM accounts"))
            assert await db.run_read(count) == 2


@pytest.mark.usefixtures("lag")
@pytest.mark.parametrize("work", BY_DRIVER)
async def test_after_a_commit_that_is_noted(app: App, work: Work) -> None:
    """The write is visible before the connection is returned, and afterwards."""
    async with app.open() as db:
        await prepare(db, app)
        async with db.fresh():
            async with db.writer_engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await connection.commit()
                await work(connection)
                assert await db.run_read(count) == 2
            assert await db.run_read(count) == 2
        app.sql("DELETE FROM accounts WHERE id = 9")
        await until(app.cluster.caught_up)
        async with db.fresh() as seen:
            async with db.writer_engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await connection.commit()
                await work(connection)
            assert await db.run_read(count) == 2
        assert seen.token is not None


@pytest.mark.usefixtures("lag")
@pytest.mark.parametrize("work", [*BY_DRIVER, procedure_that_fails])
async def test_in_autocommit(app: App, work: Work) -> None:
    async with app.open() as db:
        await prepare(db, app)
        async with db.fresh(), db.writer_engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await work(connection)
            assert await db.run_read(count) == 2


@pytest.mark.usefixtures("lag")
async def test_before_another_transaction(app: App) -> None:
    """Another transaction is open while reads run, and the work before it is committed."""
    async with app.open(writes="serializable") as db:
        await prepare(db, app)
        async with db.fresh(), db.writer_engine.connect() as connection:
            await transaction_of_the_driver(connection)
            await connection.execute(text("SELECT 1"))
            assert await db.run_read(count) == 2


async def test_a_commit_is_asked_for_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, functions and auto sessions query its position; the primary gets no query later."""
    async with app.open(replicas=app.replica_urls[:1], writes="serializable") as db:
        await prepare(db, app)
        asked = questions_of(monkeypatch, db)

        async def block() -> None:
            async with db.write() as session:
                await session.execute(text("UPDATE accounts SET balance = balance + 1"))

        async def function() -> None:
            await db.run_write(lambda session: bool(session.scalar(select(Account.id))))

        async def core() -> None:
            await db.run_write_core(lambda it: bool(it.execute(text("SELECT 1"))))

        async def auto() -> None:
            async with db.sessionmaker() as session:
                session.add(Account())
                await session.commit()

        async def with_options() -> None:
            async with db.write() as session:
                await session.connection(execution_options={"isolation_level": "READ COMMITTED"})
                await session.execute(text("UPDATE accounts SET balance = balance + 1"))

        async def unused() -> None:
            async with db.writer_engine.connect():
                pass

        app.sql("SELECT setval('accounts_id_seq', 100)")
        for work, times in ((block, 1), (function, 1), (core, 1), (auto, 1), (unused, 0)):
            async with db.fresh():
                asked.clear()
                await work()
                assert asked.count(positions.OF_COMMIT) == times, work
                seen = seen_by(db)
                assert seen is not None
                assert not seen.read_from, work
        async with db.fresh():
            asked.clear()
            await with_options()
            assert asked.count(positions.OF_COMMIT) == 1
