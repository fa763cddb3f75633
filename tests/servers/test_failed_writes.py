"""Failed transactions and their retries: data is written exactly once, or an error is raised.

A failed transaction leaves objects as they were before it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from sa_sqlite_pool import CommitUnknownError, ServerDatabase
from tests.postgresql import App
from tests.servers.models import Account, create_accounts

GIVEN_UP = text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
DUPLICATE = insert(Account).values(id=1)


async def balances(db: ServerDatabase) -> list[int]:
    async with db.read() as session:
        return list(await session.scalars(select(Account.balance).order_by(Account.id)))


@pytest.mark.parametrize("at_commit", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["session", "own-class"])
async def test_an_object_is_written_by_the_run_that_succeeds(
    app: App, at_commit: bool, own: bool
) -> None:
    """New or changed, it is written as it was passed in, although an earlier run had flushed it."""
    runs = 0

    def place(session: Session, new: Account, changed: Account) -> int:
        nonlocal runs
        runs += 1
        session.add_all([new, changed])
        changed.balance = 7
        session.flush()
        if runs == 1:
            session.execute(FAILS_AT_COMMIT if at_commit else GIVEN_UP)
        return new.id

    class OwnSession(AsyncSession):
        pass

    options = {"session_class": OwnSession} if own else {}
    async with app.open(replicas=[], **options) as db:
        await create_accounts(db, 0)
        app.sql(DEFERRED)
        changed = Account()
        async with db.write() as session:
            session.add(changed)
        new = Account(balance=3)
        await db.run_write(place, new, changed)
        assert runs == 2
        assert await balances(db) == [7, 3]


# Makes a COMMIT fail: the constraint is deferred until then, and its function raises the same error
# as a COMMIT with SERIALIZABLE.
DEFERRED = """
CREATE TABLE late (id INTEGER);
CREATE FUNCTION give_up() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE SQLSTATE '40001'; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION give_up()
"""
FAILS_AT_COMMIT = text("INSERT INTO late VALUES (1)")


@pytest.mark.parametrize("how", ["error", "commit", "cancelled"])
async def test_an_object_of_a_block_that_failed(app: App, how: str) -> None:
    """It is transient again, and can be added to the next one."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db, 0)
        app.sql(DEFERRED)
        new = Account(balance=3)

        async def fail() -> None:
            async with db.write() as session:
                session.add(new)
                await session.flush()
                if how == "error":
                    raise ZeroDivisionError
                if how == "cancelled":
                    task.cancel()
                    await asyncio.sleep(0)
                await session.execute(FAILS_AT_COMMIT)

        task = asyncio.create_task(fail())
        with pytest.raises((ZeroDivisionError, DBAPIError, asyncio.CancelledError)):
            await task
        async with db.write() as session:
            session.add(new)
        assert await balances(db) == [3]


async def test_what_a_listener_raises_after_the_commit(app: App) -> None:
    """The error is raised, because running the function again would write twice."""
    async with app.open(replicas=[], attempts=3) as db:
        await create_accounts(db, 0)

        def audit(_: Session) -> None:
            raise error

        def place(session: Session) -> None:
            session.add(Account(balance=3))
            event.listen(session, "after_commit", audit)

        with pytest.raises(DBAPIError) as caught:
            await db.run_write_core(lambda connection: connection.execute(GIVEN_UP))
        error = caught.value
        assert db.statistics().retried == 2
        with pytest.raises(DBAPIError) as again:
            await db.run_write(place)
        assert again.value is error
        assert db.statistics().retried == 2
        assert await balances(db) == [3]


@pytest.mark.parametrize("door", ["write", "run_write", "run_write_core", "engine"])
async def test_an_error_that_was_caught(app: App, door: str) -> None:
    """PostgreSQL has aborted the transaction but reports nothing at COMMIT: an error is raised."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)

        async def write(target: Any) -> None:
            await target.execute(insert(Account).values(id=2))
            with pytest.raises(IntegrityError):
                await target.execute(DUPLICATE)

        def fn(target: Any) -> None:
            target.execute(insert(Account).values(id=2))
            swallow(target)

        before = db.statistics()
        with pytest.raises(DBAPIError, match=r"put begin_nested\(\)[\s\S]*is aborted"):
            if door == "write":
                async with db.write() as session:
                    await write(session)
            elif door == "engine":
                async with db.writer_engine.begin() as connection:
                    await write(connection)
            else:
                await getattr(db, door)(fn)
        done = (db.statistics() - before).engine("writer").transactions
        assert (done.commits, done.rollbacks) == (0, 1)
        assert await balances(db) == [0]


async def test_a_connection_goes_on_after_it(app: App) -> None:
    """The transaction is rolled back, and the connection can begin the next one."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.fresh() as seen, db.writer_engine.connect() as connection:
            with pytest.raises(IntegrityError):
                await connection.execute(DUPLICATE)
            with pytest.raises(DBAPIError, match="is aborted"):
                await connection.commit()
            await connection.rollback()  # required after each COMMIT that fails
            await connection.execute(insert(Account).values(id=2))
            await connection.commit()
        assert not seen.unconfirmed
        assert len(await balances(db)) == 2


async def test_an_error_within_a_savepoint(app: App) -> None:
    """Such an error is harmless: all statements before and after the savepoint are committed."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.write() as session:
            session.add(Account(id=2))
            await session.flush()
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    await session.execute(DUPLICATE)
            session.add(Account(id=3))
        assert len(await balances(db)) == 3


@pytest.mark.parametrize("how", ["driver", "listener"])
async def test_an_error_that_nobody_tells_of(app: App, how: str) -> None:
    """It is an error of the driver's own statement, or one that an engine listener replaces."""

    def replace_error(_: object) -> None:
        raise KeyError("mine")

    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        if how == "listener":
            event.listen(Engine, "handle_error", replace_error)
        try:
            with pytest.raises((DBAPIError, KeyError)) as caught:
                async with db.write() as session:
                    session.add(Account(id=2))
                    await session.flush()
                    if how == "listener":
                        with pytest.raises(KeyError):
                            await session.execute(DUPLICATE)
                    else:
                        connection = await session.connection()
                        driver: Any = (await connection.get_raw_connection()).driver_connection
                        with pytest.raises(Exception, match="unique"):
                            await driver.execute("INSERT INTO accounts VALUES (1, 0)")
        finally:
            if how == "listener":
                event.remove(Engine, "handle_error", replace_error)
        assert how == "listener" or "put begin_nested()" in str(caught.value)
        assert await balances(db) == [0]
        async with db.write() as session:  # the connection works as before
            session.add(Account(id=2))
        assert len(await balances(db)) == 2


async def test_what_another_task_commits_meanwhile(app: App) -> None:
    """It does not prevent a retry, because it is another transaction."""
    runs = 0

    async with app.open(replicas=[], writes="serializable") as db:
        await create_accounts(db)

        async def beside() -> None:
            async with db.write() as session:
                session.add(Account(id=5))

        def place(session: Session) -> None:
            nonlocal runs
            runs += 1
            session.add(Account(id=2))
            session.flush()
            if runs == 1:
                await_only(asyncio.create_task(beside()))
                session.execute(GIVEN_UP)

        await db.run_write(place)
        assert runs == 2
        assert len(await balances(db)) == 3


def swallow(target: Any) -> None:
    with pytest.raises(IntegrityError):
        target.execute(DUPLICATE)


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_a_connection_that_has_ended_before_commit(app: App, writes: str) -> None:
    """It is known that nothing is written: the error is SQLAlchemy's, as of any statement."""
    end = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE state = '{}'"
    async with app.open(writes=writes, replicas=[]) as db:
        await create_accounts(db)
        with pytest.raises(DBAPIError) as caught:
            async with db.write() as session:
                await session.execute(text("UPDATE accounts SET balance = 5"))
                app.sql(end.format("idle in transaction"))
        assert caught.value.connection_invalidated
        assert not isinstance(caught.value, CommitUnknownError)
        async with db.read() as session:
            assert await session.scalar(text("SELECT balance FROM accounts")) == 0
        assert db.statistics().engine("writer").transactions.lost == 1
