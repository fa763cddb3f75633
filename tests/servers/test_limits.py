"""statement_timeout: enforced by the server, or by the client if the server does not respond."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import CommitUnknownError, ConfigurationError, StatementTimeout
from tests.postgresql import App
from tests.servers.doing import LONG, ONE
from tests.servers.freezing import frozen, frozen_later, nothing_left, soon
from tests.servers.models import create_accounts
from tests.servers.test_frozen import DOORS

SHOW = text("SHOW statement_timeout")
OPTION = "statement_timeout"


@pytest.mark.parametrize("name", DOORS)
async def test_the_server_stops_a_statement(app: App, name: str) -> None:
    """Its time is over: the error names it and the option, and a new transaction can begin."""
    async with app.open(replicas=app.replica_urls[:1], statement_timeout=0.2) as db:
        async with nothing_left(db):
            with pytest.raises(StatementTimeout, match=r"statement_timeout=0.2 s: SELECT pg_sleep"):
                async with DOORS[name](db) as session:
                    await session.execute(LONG)
        async with DOORS[name](db) as session:
            assert await session.scalar(SHOW) == "200ms"


async def test_there_is_no_limit_by_default(app: App) -> None:
    """The server is not sent one: a pool in front of it may not know this parameter."""
    async with app.open() as db, db.write() as session:
        assert await session.scalar(SHOW) == "0"


async def test_the_application_s_own_settings_stay(app: App) -> None:
    """Settings that are passed to the driver are merged with the limit, and take precedence."""
    own: dict[str, Any] = {
        "asyncpg": {"server_settings": {"work_mem": "5MB"}},
        "psycopg": {"options": "-c work_mem=5MB"},
    }
    db = app.open(statement_timeout=3, connect_args=own[app.driver])
    async with db, db.read() as session:
        assert await session.scalar(SHOW) == "3s"
        assert await session.scalar(text("SHOW work_mem")) == "5MB"


@pytest.mark.parametrize("name", ["db.write()", "db.read()", "the writer engine"])
async def test_a_limit_of_one_statement(app: App, name: str) -> None:
    """The execution option limits that statement, to more or less, but not the next one."""
    async with app.open(replicas=app.replica_urls[:1], statement_timeout=30) as db:
        async with DOORS[name](db) as session:
            for option, shown in ((0.5, "500ms"), (60, "1min"), (None, "0")):
                found = await session.execute(SHOW, execution_options={OPTION: option})
                assert found.scalar() == shown
                assert await session.scalar(SHOW) == "30s"
        with pytest.raises(StatementTimeout, match=r"statement_timeout=0.1 s"):
            async with DOORS[name](db) as session:
                await session.execute(LONG, execution_options={OPTION: 0.1})
        async with DOORS[name](db) as session:
            assert await session.scalar(SHOW) == "30s"


async def test_a_limit_of_one_statement_in_autocommit(app: App) -> None:
    """It does not limit the next statement, whether this one fails or not."""
    async with app.open(replicas=[]) as db:
        engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            found = await connection.execute(SHOW, execution_options={OPTION: 5})
            assert found.scalar() == "5s"
            assert await connection.scalar(SHOW) == "0"
            with pytest.raises(StatementTimeout):
                await connection.execute(LONG, execution_options={OPTION: 0.1})
            assert await connection.scalar(SHOW) == "0"


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_a_limit_that_the_application_has_set(app: App, writes: str) -> None:
    """It applies again after a statement with its own limit, in a transaction and in AUTOCOMMIT."""
    async with app.open(replicas=app.replica_urls[:1], writes=writes) as db:
        for block in (db.write, db.read):
            async with block() as session:
                await session.execute(text("SET LOCAL statement_timeout = '7s'"))
                found = await session.execute(SHOW, execution_options={OPTION: 3})
                assert found.scalar() == "3s"
                assert await session.scalar(SHOW) == "7s"
            async with block() as session:
                assert await session.scalar(SHOW) == "0"
        engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text("SET statement_timeout = '1500ms'"))
            for sql in (SHOW, text("SELECT nothing")):
                with suppress(DBAPIError):
                    await connection.execute(sql, execution_options={OPTION: None})
                assert await connection.scalar(SHOW) == "1500ms"
            await connection.execute(text("RESET statement_timeout"))


async def test_a_limit_of_one_statement_takes_no_snapshot(app: App) -> None:
    """With SERIALIZABLE, a table lock must be acquired before the snapshot is taken."""
    async with app.open(replicas=[], writes="serializable") as db:
        await create_accounts(db)
        async with db.write() as session:
            lock = text("LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE")
            await session.execute(SHOW, execution_options={OPTION: 3})
            app.sql("UPDATE accounts SET balance = 7")
            await session.execute(lock, execution_options={OPTION: 3})
            assert await session.scalar(text("SELECT balance FROM accounts")) == 7


async def test_a_limit_of_an_engine(app: App) -> None:
    """As an engine's option, it applies to all of its statements."""
    db = app.open(replicas=[])
    engine = db.reader_engine.execution_options(statement_timeout=7)
    async with db, engine.connect() as connection:
        for _ in range(2):
            assert await connection.scalar(SHOW) == "7s"


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_a_limit_of_an_engine_and_a_savepoint(app: App, writes: str) -> None:
    """After an error, the server accepts only ROLLBACK TO, and not even a SET of the limit."""
    db = app.open(replicas=[], writes=writes, statement_timeout=30)
    engine = db.writer_engine.execution_options(statement_timeout=7)
    async with db, engine.begin() as connection:
        with pytest.raises(DBAPIError, match="nothing"):
            async with connection.begin_nested():
                await connection.execute(text("SELECT nothing"))
        assert await connection.scalar(SHOW) == "7s"
        async with connection.begin_nested():
            with suppress(DBAPIError):
                await connection.execute(text("SELECT nothing"))
            await connection.execute(text("ROLLBACK TO SAVEPOINT sa_savepoint_2"))
        own = {OPTION: 30}
        assert await connection.scalar(SHOW, execution_options=own) == "30s"


@pytest.mark.parametrize("name", ["db.write()", "db.read()"])
async def test_a_limit_of_a_statement_that_is_not_sent(app: App, name: str) -> None:
    """If the driver refuses a parameter, the transaction continues, with the limit that it had."""
    sql = text("SELECT CAST(:value AS int)")
    async with app.open(replicas=[], statement_timeout=30) as db, DOORS[name](db) as session:
        with pytest.raises(DBAPIError):
            await session.execute(sql, {"value": object()}, execution_options={OPTION: 7})
        assert await session.scalar(SHOW) == "30s"
        with pytest.raises(DBAPIError, match="nothing"):
            async with session.begin_nested():
                await session.execute(text("SELECT nothing"), execution_options={OPTION: 7})
        assert await session.scalar(SHOW) == "30s"


async def test_a_wrong_option(app: App) -> None:
    """It is refused before anything is executed."""
    async with app.open(replicas=[]) as db, db.read() as session:
        with pytest.raises(ConfigurationError, match="statement_timeout"):
            await session.execute(ONE, execution_options={OPTION: -1})
    with pytest.raises(ConfigurationError, match="statement_timeout"):
        app.open(statement_timeout=-1)


@pytest.mark.parametrize("name", DOORS)
async def test_a_frozen_server_stops_nothing(app: App, name: str) -> None:
    """Its connection is abandoned a moment later instead, and the error is the same."""
    servers = app.cluster.servers
    async with app.open(replicas=app.replica_urls[:1], statement_timeout=0.2) as db:
        async with nothing_left(db):
            with frozen_later(*servers) as freeze:

                async def work() -> None:
                    async with DOORS[name](db) as session:
                        await session.execute(ONE)
                        freeze()
                        await session.execute(ONE)

                error = await soon(work())
        assert isinstance(error, StatementTimeout)
        assert "did not respond" in str(error)


async def test_a_shorter_limit_of_the_application(app: App) -> None:
    """The error does not name the option, because raising the option would not help."""
    async with app.open(replicas=[], statement_timeout=60) as db:
        with pytest.raises(StatementTimeout, match=r"the statement_timeout of the server: SELECT"):
            async with db.write() as session:
                await session.execute(text("SET LOCAL statement_timeout = 50"))
                await session.execute(LONG)


async def test_a_limit_of_another_is_not_claimed(app: App) -> None:
    """A statement that was cancelled by something else raises the driver's error."""
    async with app.open(replicas=[], statement_timeout=60) as db:
        with pytest.raises(DBAPIError) as caught:
            async with db.write() as session:
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                cancel = text(f"SELECT pg_cancel_backend({pid}), pg_sleep(60)")
                await session.execute(cancel)
        assert not isinstance(caught.value, StatementTimeout)


async def test_a_commit_without_an_answer(app: App) -> None:
    """The error says that the outcome is unknown, and run_write() does not retry it."""
    runs = 0
    async with app.open(replicas=[], statement_timeout=0.2) as db:
        await create_accounts(db)
        async with nothing_left(db):
            with frozen_later(app.cluster.primary) as freeze:

                def deposit(session: Any) -> None:
                    nonlocal runs
                    runs += 1
                    session.execute(text("UPDATE accounts SET balance = 5"))
                    freeze()

                error = await soon(db.run_write(deposit))
        assert isinstance(error, CommitUnknownError)
        assert "whether the transaction was committed is unknown" in str(error)
        assert error.connection_invalidated
        assert runs == 1
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)


async def test_a_commit_whose_connection_is_broken(app: App) -> None:
    """close() may close it: the outcome is unknown, although it was in fact committed here."""
    db = await app.open(replicas=[]).open()
    await create_accounts(db)
    at_commit = asyncio.Event()

    async def deposit() -> None:
        async with db.write() as session:
            await session.execute(text("UPDATE accounts SET balance = 5"))
            app.cluster.primary.freeze()
            at_commit.set()

    try:
        task = asyncio.create_task(deposit())
        await at_commit.wait()
        assert await soon(db.close(timeout=0.1)) is None
        assert isinstance(await soon(task), CommitUnknownError)
    finally:
        app.cluster.primary.thaw()
    assert app.sql("SELECT balance FROM accounts") in {"0", "5"}


async def test_a_commit_that_is_cancelled(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """CancelledError cannot report it, so it is logged, and a fresh() read uses the primary."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.fresh() as seen:
            with frozen_later(app.cluster.primary) as freeze:

                async def deposit() -> None:
                    async with db.write() as session:
                        await session.execute(text("UPDATE accounts SET balance = 5"))
                        freeze()

                error = await soon(asyncio.wait_for(deposit(), 0.2))
            assert isinstance(error, asyncio.TimeoutError)
            assert seen.token == "FFFFFFFF/FFFFFFFF"
    assert any("was committed is unknown" in record.getMessage() for record in caplog.records)


async def test_a_commit_that_fails_is_rolled_back(app: App) -> None:
    """An error from the server itself leaves no doubt about the outcome."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.write() as session:
            await session.execute(
                text("ALTER TABLE accounts ADD UNIQUE (balance) DEFERRABLE INITIALLY DEFERRED")
            )
        with pytest.raises(Exception, match="duplicate key") as caught:
            async with db.write() as session:
                await session.execute(text("INSERT INTO accounts VALUES (9, 0)"))
        assert not isinstance(caught.value, CommitUnknownError)
        assert db.statistics().engine("writer").transactions.rollbacks == 1


async def test_a_rollback_without_an_answer_is_one(app: App) -> None:
    """If the server does not respond, rollback() returns, and nothing is committed."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        async with db.write() as session:
            await session.execute(text("UPDATE accounts SET balance = 5"))
            with frozen(app.cluster.primary):
                assert await soon(session.rollback()) is None
        async with db.read() as session:
            assert await session.scalar(text("SELECT balance FROM accounts")) == 0
