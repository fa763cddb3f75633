"""Isolation levels and other options of transactions, and guarantees that they may not change."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import ConfigurationError, ServerDatabase
from tests.postgresql import App
from tests.servers.models import create_accounts

INSERT = text("INSERT INTO accounts (id, balance) VALUES (9, 0)")
COUNT = text("SELECT count(*) FROM accounts")
LEVEL = text("SHOW transaction_isolation")
READ_ONLY = text("SHOW transaction_read_only")

OPTIONS: list[dict[str, Any]] = [
    {"postgresql_readonly": True},
    {"postgresql_readonly": False},
    {"postgresql_deferrable": True},
    {"isolation_level": "SERIALIZABLE", "postgresql_readonly": False},
    {"isolation_level": "READ COMMITTED"},
]


@pytest.mark.parametrize("options", OPTIONS)
async def test_a_reader_is_one_whatever_options_it_has(app: App, options: dict[str, Any]) -> None:
    """It is read-only in the transaction with the options, and in later ones on that connection."""
    async with app.open(replicas=[], readers=1) as db:
        await create_accounts(db)
        async with db.reader_engine.execution_options(**options).connect() as connection:
            assert await connection.scalar(READ_ONLY) == "on"
        async with db.read() as session:
            await session.connection(execution_options=options)
            assert await session.scalar(READ_ONLY) == "on"
        async with db.read() as session:
            assert await session.scalar(LEVEL) == "repeatable read"
            with pytest.raises(OperationalError, match=r"a reader .* cannot change a database"):
                await session.execute(INSERT)


async def test_a_function_that_writes_is_not_lost(app: App) -> None:
    """After a read with its own options, an auto session is still routed to the writer."""
    app.sql("CREATE TABLE log (n int)")
    app.sql(
        "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS "
        "'INSERT INTO log VALUES (1) RETURNING 1'"
    )
    async with app.open(replicas=[], readers=1) as db:
        async with db.read() as session:
            await session.connection(execution_options={"postgresql_readonly": True})
            await session.execute(text("SELECT 1"))
        async with db.sessionmaker() as session:
            await session.scalar(select(func.note()))
            await session.commit()
        assert app.sql("SELECT count(*) FROM log") == "1"


@pytest.mark.parametrize("replicas", [0, 1])
async def test_autocommit_on_a_reader_is_refused(app: App, replicas: int) -> None:
    """It is refused on each server, and its connection can be used normally afterwards."""
    async with app.open(replicas=app.replica_urls[:replicas], readers=1) as db, db.fresh():
        await create_accounts(db)
        autocommit: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
        for engine in (db.reader_engine, db.reader_engine.execution_options(**autocommit)):
            async with engine.connect() as connection:
                await connection.execution_options(**autocommit)
                with pytest.raises(ConfigurationError, match='set "READ COMMITTED", where each'):
                    await connection.execute(INSERT)
        async with db.read() as session:
            assert await session.scalar(READ_ONLY) == "on"
            assert await session.scalar(COUNT) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_snapshot_before_the_turn_is_refused(app: App, level: str) -> None:
    """It is refused on connections, sessions and engines; the next transaction holds the turn."""
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        options: dict[str, Any] = {"isolation_level": level}
        wrong = f'isolation_level="{level}" with writes="in turn"'
        with pytest.raises(ConfigurationError, match=wrong):
            async with db.write() as session:
                await session.connection(execution_options=options)
        with pytest.raises(ConfigurationError, match=wrong):
            async with db.sessionmaker() as session:
                await session.connection(execution_options=options)
        with pytest.raises(ConfigurationError, match=wrong):
            async with db.writer_engine.execution_options(**options).begin():
                pass
        async with db.write() as session:
            assert await session.scalar(LEVEL) == "read committed"
        assert db.writer_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", ["READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"])
async def test_other_levels_have_what_they_had(app: App, level: str) -> None:
    """Each statement has its own snapshot under them; asyncpg supports one fewer."""
    if level == "READ UNCOMMITTED" and app.driver == "asyncpg":
        pytest.skip("SQLAlchemy's dialect of asyncpg does not know it")
    async with app.open(replicas=[]) as db:
        await create_accounts(db)
        engine = db.writer_engine.execution_options(isolation_level=level)
        async with engine.begin() as connection:
            await connection.execute(INSERT)
        async with db.read() as session:
            assert await session.scalar(COUNT) == 2


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"])
async def test_serializable_writes_take_any_level(app: App, level: str) -> None:
    """There is no turn to wait for, so each level is allowed."""
    async with app.open(replicas=[], writes="serializable") as db, db.write() as session:
        await session.connection(execution_options={"isolation_level": level})
        assert await session.scalar(LEVEL) == level.lower()


async def test_a_level_by_options_of_the_engines_is_refused() -> None:
    """It is refused like isolation_level=; other options are kept."""
    pytest.importorskip("asyncpg")
    url = "postgresql+asyncpg://primary/app"
    with pytest.raises(ConfigurationError, match="chooses its pools and isolation levels"):
        ServerDatabase(url, execution_options={"isolation_level": "SERIALIZABLE"})
    db = ServerDatabase(url, execution_options={"logging_token": "app"})
    assert db.writer_engine.get_execution_options() == {"logging_token": "app"}
