"""PostgreSQL's errors are those that applications know from SQLite, and name the way out."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from sa_sqlite_pool import ForbiddenWriteError, ServerDatabase
from sa_sqlite_pool.postgresql.sqlstate import sqlstate_of
from tests.postgresql import App, until
from tests.servers.doing import ONE
from tests.servers.models import create_accounts

INSERT = text("INSERT INTO accounts (id, balance) VALUES (:id, 0)")
UPDATE = text("UPDATE accounts SET balance = balance + 1 WHERE id = :id")


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_reader_cannot_write(app: App, replicas: int) -> None:
    """On replicas and on the primary, the error is SQLite's, with the way out and an SQLSTATE."""
    async with app.open(replicas=app.replica_urls[:replicas]) as db, db.fresh():
        await create_accounts(db)
        for door in (db.read(), db.reader_engine.connect(), db.sessionmaker(role="reader")):
            with pytest.raises(OperationalError, match="use a writer session") as caught:
                async with door as session:
                    await session.execute(INSERT, {"id": 5})
            error = caught.value
            assert isinstance(error.orig, ForbiddenWriteError)
            assert sqlstate_of(error) == "25006"
            assert not error.connection_invalidated
            assert error.params
            copy = pickle.loads(pickle.dumps(error))
            assert str(copy) == str(error)
            assert sqlstate_of(copy) == "25006"


async def test_a_primary_that_takes_no_writes(app: App) -> None:
    """The writer's error says that the server is a replica, if it was given a replica's URL."""
    replica = app.url(app.cluster.replicas[0])
    async with ServerDatabase(replica) as db:
        with pytest.raises(OperationalError, match="accepts no writes: it is a replica") as caught:
            async with db.write() as session:
                await session.execute(text("CREATE TABLE t (i int)"))
        assert isinstance(caught.value.orig, ForbiddenWriteError)


async def test_a_serialization_failure_says_what_to_do(app: App) -> None:
    """It remains SQLAlchemy's error, of the driver's class, with one more sentence."""
    async with app.open(writes="serializable", replicas=[]) as db:
        await create_accounts(db, 2)
        count = text("SELECT sum(balance) FROM accounts")
        with pytest.raises(DBAPIError, match=r"run_write\(\) does automatically") as caught:
            async with db.write() as first:
                await first.execute(count)
                async with db.sessionmaker(role="writer") as second:
                    await second.execute(count)
                    await second.execute(UPDATE, {"id": 1})
                    await second.commit()
                await first.execute(UPDATE, {"id": 2})
        error = caught.value
        assert sqlstate_of(error) == "40001"
        assert not isinstance(error.orig, ForbiddenWriteError)


async def test_a_deadlock_says_what_to_do(app: App) -> None:
    """One of the two transactions gets the error, and the other one continues."""
    async with app.open(writes="serializable", replicas=[]) as db:
        await create_accounts(db, 2)
        both = asyncio.Event()
        ready = 0

        async def lock(first: int, second: int) -> None:
            nonlocal ready
            async with db.write() as session:
                lock = text("SELECT id FROM accounts WHERE id = :id FOR UPDATE")
                await session.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
                await session.execute(lock, {"id": first})
                ready += 1
                if ready == 2:
                    both.set()
                await both.wait()
                await session.execute(lock, {"id": second})

        done = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
        (error,) = [one for one in done if one is not None]
        assert sqlstate_of(error) == "40P01"
        assert "run_write() does automatically" in str(error)


async def test_listeners_of_the_application_come_after(app: App) -> None:
    """They receive the error that is raised, and may raise another one."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        heard: list[Any] = []

        @event.listens_for(db.reader_engine.sync_engine, "handle_error")
        def hear(context: Any) -> None:
            heard.append(context.chained_exception)

        with pytest.raises(OperationalError) as caught:
            async with db.read() as session:
                await session.execute(INSERT, {"id": 5})
        assert heard == [caught.value]


async def test_other_errors_are_as_they_are(app: App) -> None:
    """A mistake in a statement raises the same error as on a stock engine, with nothing added."""
    async with app.open(replicas=[]) as db:
        with pytest.raises(DBAPIError) as caught:
            async with db.read() as session:
                await session.execute(text("SELECT nothing FROM nowhere"))
        assert sqlstate_of(caught.value) == "42P01"
        assert caught.value.detail == []


async def test_a_connection_that_is_killed_while_it_reads(app: App) -> None:
    """The error is SQLAlchemy's, and leaving the block raises no other."""
    async with app.open(replicas=[]) as db:
        with pytest.raises(DBAPIError) as caught:
            async with db.read() as session:
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                app.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
                await session.execute(ONE)
        assert caught.value.connection_invalidated


async def test_a_rollback_of_a_connection_that_is_killed(app: App) -> None:
    """It returns: there is nothing to roll back, and the next transaction works."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.write() as session:
            await session.execute(UPDATE, {"id": 1})
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            app.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
            await session.rollback()
            assert await session.scalar(text("SELECT balance FROM accounts")) == 0
        lost = db.statistics().engine("writer").transactions.lost
        assert lost == 1
        await until(lambda: app.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0")


async def test_an_auto_session_goes_to_the_writer(app: App) -> None:
    """The refusal's SQLSTATE sends a function that writes there, as on plain engines."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.write() as session:
            await session.execute(
                text(
                    "CREATE FUNCTION open_account() RETURNS int LANGUAGE sql AS "
                    "'INSERT INTO accounts (id, balance) VALUES (9, 9) RETURNING id'"
                )
            )
        async with db.sessionmaker.begin() as session:
            assert await session.scalar(text("SELECT open_account()")) == 9
        async with db.read() as session:
            assert await session.scalar(text("SELECT balance FROM accounts WHERE id = 9")) == 9
