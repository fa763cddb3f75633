"""Work that an application does on the driver's own connection is part of the transaction.

This includes a transaction's first statement, which SQLAlchemy's asyncpg adapter cannot see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sa_sqlite_pool import ServerDatabase, StatementTimeout
from sa_sqlite_pool.postgresql.sqlstate import READ_ONLY_TRANSACTION
from tests.postgresql import App
from tests.servers.freezing import frozen
from tests.servers.models import Account, create_accounts

INSERT = "INSERT INTO accounts (id, balance) VALUES (9, 0)"
MODES = ["in turn", "serializable"]


def by_driver(target: Session | Connection, sql: str = INSERT) -> None:
    """Execute SQL on the driver's connection, by ``run_async()`` as documented."""
    connection = target if isinstance(target, Connection) else target.connection()
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: driver.execute(sql))


def write_and_fail(target: Any) -> None:
    by_driver(target)
    raise ValueError("the file is no good")


async def ids(db: ServerDatabase) -> list[int]:
    async with db.read() as session:
        return list(await session.scalars(select(Account.id).order_by(Account.id)))


@pytest.mark.parametrize("writes", MODES)
async def test_it_is_rolled_back_with_the_transaction(app: App, writes: str) -> None:
    async with app.open(replicas=[], writes=writes) as db:
        await create_accounts(db)
        for run in (db.run_write, db.run_write_core):
            with pytest.raises(ValueError, match="no good"):
                await run(write_and_fail)
        with pytest.raises(ValueError, match="no good"):
            async with db.write() as session:
                await session.run_sync(write_and_fail)
        assert await ids(db) == [1]
        await db.run_write_core(by_driver)
        assert await ids(db) == [1, 9]


async def test_it_is_there_once_when_the_function_runs_again(app: App) -> None:
    """The first run has written it, and is rolled back because of a conflict."""
    async with app.open(replicas=[], writes="serializable", writers=2) as db:
        await create_accounts(db)
        runs: list[int] = []

        def work(connection: Connection) -> None:
            runs.append(1)
            by_driver(connection)
            if len(runs) == 1:
                app.sql("UPDATE accounts SET balance = 5 WHERE id = 1")
            connection.execute(text("UPDATE accounts SET balance = balance + 1 WHERE id = 1"))

        def reads_first(connection: Connection) -> None:
            by_driver(connection, "SELECT 1")
            work(connection)

        await db.run_write_core(reads_first)
        assert len(runs) == 2
        assert await ids(db) == [1, 9]


@pytest.mark.parametrize("name", ["run_read", "run_read_core"])
async def test_a_reader_cannot_write_by_the_driver(app: App, name: str) -> None:
    async with app.open(replicas=[], readers=1) as db:
        await create_accounts(db)
        with pytest.raises(Exception, match="read-only transaction"):
            await getattr(db, name)(by_driver)
        await getattr(db, name)(by_driver, "SELECT count(*) FROM accounts")
        async with db.read() as session:
            raw: Any = await (await session.connection()).get_raw_connection()
            with pytest.raises(Exception, match="read-only transaction"):
                await raw.driver_connection.execute(INSERT)
        assert await ids(db) == [1]


async def test_a_reader_whose_transaction_a_text_has_ended(app: App) -> None:
    """It continues to read, in another transaction, which is READ ONLY as well."""
    async with app.open(replicas=[], readers=1) as db:
        await create_accounts(db)
        for end in ("COMMIT", "ROLLBACK"):
            async with db.read() as session:
                await session.execute(text(end))
                assert await session.scalar(select(Account.id)) == 1
                await session.execute(text(end))
                with pytest.raises(DBAPIError) as raised:
                    await session.execute(insert(Account).values(id=9))
                assert getattr(raised.value.orig, "sqlstate", None) == READ_ONLY_TRANSACTION
        assert await ids(db) == [1]


@pytest.mark.parametrize("writes", MODES)
async def test_nothing_is_sent_for_what_does_nothing(app: App, writes: str) -> None:
    """A block without a statement checks out no connection; a transaction takes one BEGIN."""
    async with app.open(replicas=[], writes=writes, readers=1, writers=1) as db:
        await create_accounts(db)
        taken: list[object] = []
        for engine in (db.reader_engine, db.writer_engine):
            event.listen(engine.sync_engine, "checkout", lambda *_: taken.append(1))
        async with db.read():
            pass
        async with db.write():
            pass
        assert taken == []


def _queries(connection: Connection) -> int:
    driver: Any = connection.connection.driver_connection
    return int(driver._protocol.queries_count)


async def test_begin_costs_no_question_more(app: App) -> None:
    """There are three: BEGIN, the statement, and the end, as without this package."""
    if app.driver != "asyncpg":
        pytest.skip("psycopg begins by itself")
    async with app.open(replicas=[], writes="serializable", readers=1, writers=1) as db:
        await create_accounts(db)

        def count(session: Session) -> int:
            session.scalar(select(Account.id))
            return _queries(session.connection())

        for run in (db.run_read, db.run_write):
            await run(count)
            before = await run(count)
            assert await run(count) - before == 3


@pytest.mark.parametrize("engine", ["reader_engine", "writer_engine"])
async def test_begin_on_a_frozen_server(app: App, engine: str) -> None:
    """Its time limit is that of a statement."""
    if app.driver != "asyncpg":
        pytest.skip("psycopg begins with the statement")
    options: dict[str, Any] = {"writes": "serializable", "statement_timeout": 0.1}
    async with app.open(replicas=[], readers=1, writers=1, **options) as db:
        chosen: Callable[[], Any] = getattr(db, engine).connect
        async with chosen() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.rollback()
            with frozen(app.cluster.primary), pytest.raises(StatementTimeout, match="BEGIN"):
                await connection.begin()
