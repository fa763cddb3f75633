"""Readers' connections that are checked out in a ``fresh()`` block during a write.

Replicas show each commit half a second later, or nothing until replay is resumed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import ReadTimeout, ServerDatabase
from tests.postgresql import App, until
from tests.servers.doing import questions_of
from tests.servers.freezing import soon, standing_still
from tests.servers.models import Account, create_accounts, ready

COUNT = select(func.count()).select_from(Account)
READ_COMMITTED: dict[str, Any] = {"isolation_level": "READ COMMITTED"}


async def write(db: ServerDatabase) -> None:
    sql = "INSERT INTO accounts (id, balance) SELECT max(id) + 1, 1 FROM accounts"
    await db.run_write(lambda session: bool(session.execute(text(sql))))


@pytest.mark.usefixtures("lag")
async def test_the_first_transaction_on_it(app: App) -> None:
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh(), db.reader_engine.connect() as connection:
            await write(db)
            assert await connection.scalar(COUNT) == 2


@pytest.mark.usefixtures("lag")
async def test_the_second_transaction_on_it(app: App) -> None:
    """The first transaction keeps its snapshot, whatever is written meanwhile."""
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh(), db.reader_engine.connect() as connection:
            assert await connection.scalar(COUNT) == 1
            await write(db)
            assert await connection.scalar(COUNT) == 1
            await connection.rollback()
            assert await connection.scalar(COUNT) == 2


@pytest.mark.usefixtures("lag")
@pytest.mark.parametrize(
    "first",
    [
        *("", "SET LOCAL work_mem = '5MB'", "SAVEPOINT one", "/* trace */ SHOW work_mem"),
        "LOCK TABLE accounts IN ACCESS SHARE MODE",
        f"{'-' * 100}\n{'/* */ -- ' * 10}\nSHOW work_mem",  # must take linear time
    ],
)
async def test_a_transaction_that_has_begun_early(app: App, first: str) -> None:
    """It has no snapshot yet. This also works if the readers have only one connection."""
    async with app.open(replicas=app.replica_urls[:1], readers=1) as db:
        await ready(db, app)
        async with db.fresh(), db.read() as session:
            await session.connection()
            if first:
                await session.execute(text(first))
            await write(db)
            assert await session.scalar(COUNT) == 2


@pytest.mark.usefixtures("lag")
async def test_one_that_is_detached(app: App) -> None:
    """It remains connected to the same server, which the errors of its statements name."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        await ready(db, app)
        async with db.fresh(), db.reader_engine.connect() as connection:
            await connection.run_sync(lambda synchronous: synchronous.detach())
            await write(db)
            assert await connection.scalar(COUNT) == 2
            with pytest.raises(DBAPIError, match=f":{app.cluster.replicas[0].port}/"):
                await connection.execute(text("DELETE FROM accounts"))
            own: Any = connection.sync_connection
            driver = own.connection.dbapi_connection.driver_connection
        await driver.close()  # SQLAlchemy leaves psycopg's open, on stock engines as well


@pytest.mark.usefixtures("lag")
async def test_each_statement_under_read_committed(app: App) -> None:
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh(), db.read() as session:
            await session.connection(execution_options=READ_COMMITTED)
            assert await session.scalar(COUNT) == 1
            for number in (2, 3):
                await write(db)
                assert await session.scalar(COUNT) == number


async def test_what_was_read_on_the_primary(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read goes back in time: another program's commit was seen there."""
    async with app.open() as db:
        await ready(db, app)
        with standing_still(*app.cluster.replicas):
            async with db.fresh(), db.reader_engine.connect() as connection:
                app.sql("INSERT INTO accounts (id, balance) VALUES (9, 0)")
                async with db.write() as session:
                    assert await session.scalar(COUNT) == 2
                    await session.rollback()
                questions = questions_of(monkeypatch, db)
                reading = asyncio.ensure_future(connection.scalar(COUNT))
                await until(lambda: len(questions) > 2 or reading.done())
                for replica in app.cluster.replicas:
                    replica.sql("SELECT pg_wal_replay_resume()")
                assert await reading == 2


@pytest.mark.parametrize("early", [False, True])
async def test_a_replica_that_does_not_catch_up(app: App, early: bool) -> None:
    """The error names it and the way out, which works; the connection works later as well."""
    async with app.open(read_timeout=0.05) as db:
        await ready(db, app)
        with standing_still(*app.cluster.replicas):
            async with db.fresh(), db.reader_engine.connect() as connection:
                if early:
                    await connection.begin()
                await write(db)
                names = "|".join(server.name for server in db._readers.replicas)
                with pytest.raises(ReadTimeout, match=rf"replica ({names}) .* checked out") as one:
                    await connection.scalar(COUNT)
                assert "check one out after the write" in str(one.value)
                async with db.read() as session:
                    assert await session.scalar(COUNT) == 2
                await connection.rollback()
        await until(app.cluster.caught_up)
        async with db.read() as session:
            assert await session.scalar(COUNT) == 2


@pytest.mark.parametrize("early", [False, True])
async def test_a_wait_that_a_close_ends(
    app: App, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """The wait is ended by the close, not by its own time limit."""
    async with app.open(close_timeout=0.01) as db:
        await ready(db, app)
        with standing_still(*app.cluster.replicas):

            async def read() -> None:
                async with db.fresh(), db.reader_engine.connect() as connection:
                    if early:
                        await connection.begin()
                    await write(db)
                    questions.clear()
                    await connection.scalar(COUNT)

            questions = questions_of(monkeypatch, db)
            reading = asyncio.ensure_future(read())
            await until(lambda: len(questions) > 2)
            await db.close()
            assert isinstance(await soon(reading), DBAPIError)


async def test_nothing_is_asked_while_nothing_is_new(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No query is sent outside of a block either, nor on the primary."""
    async with app.open() as db:
        await ready(db, app)
        async with db.fresh():
            await write(db)
            await db.run_read(lambda session: session.scalar(COUNT))  # a query is allowed here
            questions = questions_of(monkeypatch, db)
            async with db.reader_engine.connect() as connection:
                questions.clear()
                for _ in range(3):
                    await connection.scalar(COUNT)
                    await connection.scalar(COUNT)
                    await connection.rollback()
            async with db.read() as session:
                await session.connection(execution_options=READ_COMMITTED)
                await session.scalar(COUNT)
                await session.scalar(COUNT)
            assert questions == []
        async with db.reader_engine.connect() as connection:  # the block's end has sent a query
            await write(db)
            questions.clear()
            await connection.scalar(COUNT)
            assert questions == []
    async with (
        app.open(replicas=[]) as db,
        db.fresh(),
        db.reader_engine.connect() as connection,
    ):
        await write(db)
        questions.clear()
        assert await connection.scalar(COUNT) == 4
        assert questions == []


@pytest.mark.parametrize("ends", ["COMMIT", "/* all */ rollback"])
async def test_a_text_that_ends_the_transaction(app: App, lag: None, ends: str) -> None:
    """Statements after it have a new snapshot, which shows all earlier writes."""
    async with app.open() as db:
        await create_accounts(db, 0)
        await until(app.cluster.caught_up)
        async with db.fresh(), db.reader_engine.connect() as connection:
            assert await connection.scalar(COUNT) == 0
            await connection.execute(text(ends))
            async with db.write() as session:
                session.add(Account(id=1))
            assert await connection.scalar(COUNT) == 1
