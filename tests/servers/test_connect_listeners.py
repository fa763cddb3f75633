"""Connections that are opened and set up: what listeners leave or raise, what is in the way."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import ServerDatabase
from sa_sqlite_pool.postgresql.sqlstate import sqlstate_of
from tests.postgresql import App, free_port
from tests.servers.doing import ONE
from tests.servers.freezing import nothing_left, pools
from tests.servers.models import Account, create_accounts

ZONE = text("SHOW timezone")


def execute(connection: Any, sql: str) -> None:
    cursor = connection.cursor()
    cursor.execute(sql)
    cursor.close()


def set_zone(connection: Any, _record: object) -> None:
    execute(connection, "SET TIME ZONE 'Europe/Berlin'")


def listen(db: ServerDatabase, name: str, listener: Callable[..., object]) -> None:
    for engine in (db.writer_engine, db.reader_engine):
        event.listen(engine.sync_engine, name, listener)


async def test_a_listener_that_leaves_a_transaction_open(app: App) -> None:
    """What it has set stays, and no server is taken for one that does not respond."""
    db = app.open(replicas=app.replica_urls[:1], freshness_wait=5)
    listen(db, "connect", set_zone)
    async with db:
        await create_accounts(db)
        for balance in range(3):
            async with db.fresh():
                async with db.write() as session:
                    (await session.get_one(Account, 1)).balance = balance
                    assert await session.scalar(ZONE) == "Europe/Berlin"
                async with db.read() as session:
                    assert (await session.get_one(Account, 1)).balance == balance
                    assert await session.scalar(ZONE) == "Europe/Berlin"
                    assert await session.scalar(text("SELECT pg_is_in_recovery()"))
        async with db.write() as session:
            await session.rollback()
            assert await session.scalar(ZONE) == "Europe/Berlin"
        assert db.statistics().servers[0].times_down == 0


async def test_a_connection_that_is_opened_once_more(app: App) -> None:
    """As SQLAlchemy does where a listener of "checkout" has found it old: it is set up, too."""
    db = app.open(replicas=[])
    listen(db, "connect", set_zone)
    old: list[bool] = []

    def check(_connection: object, _record: object, _proxied: object) -> None:
        if old and old.pop():
            raise DisconnectionError("old")

    async with db:
        listen(db, "checkout", check)
        for engine in (db.writer_engine, db.reader_engine):
            old.append(True)
            level = "AUTOCOMMIT" if engine is db.writer_engine else "READ COMMITTED"
            async with engine.execution_options(isolation_level=level).connect() as connection:
                assert await connection.scalar(ZONE) == "Europe/Berlin"
            async with engine.connect() as connection:
                await connection.rollback()
                assert await connection.scalar(ZONE) == "Europe/Berlin"
        assert old == []


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_listener_that_raises(app: App, replicas: int) -> None:
    """Its error is raised to the application; it says nothing of the server, and leaves nothing."""
    fails = True

    def listener(_connection: object, _record: object) -> None:
        if fails:
            raise ValueError("mine")

    async with app.open(replicas=app.replica_urls[:replicas]) as db:
        await create_accounts(db)
        listen(db, "connect", listener)
        for engine in (db.writer_engine, db.reader_engine):
            await engine.dispose()
        mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'sa_sqlite_pool%'"
        async with nothing_left(db):
            for block in (db.write, db.read):
                with pytest.raises(ValueError, match="mine"):
                    async with block() as session:
                        await session.execute(ONE)
            with pytest.raises(ValueError, match="mine"):
                async with db.fresh("0/1"), db.read() as session:
                    await session.execute(ONE)
        assert all(server.up for server in db.statistics().servers)
        assert app.sql(f"{mine} AND datname = current_database()") == "0"
        fails = False
        async with db.write() as session:
            await session.execute(ONE)
        async with db.read() as session:
            found = await session.scalar(text("SELECT pg_is_in_recovery()"))
            assert found is bool(replicas)


async def test_a_listener_that_raises_when_a_replica_is_back(app: App) -> None:
    """It answers: the application is told the rest."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        pool: Any = pools(db)[1]
        (replica,) = pool.replicas
        await db.reader_engine.dispose()
        pool = db.reader_engine.pool
        replica.note_down(OSError("it was down"))

        def listener(_connection: object, _record: object) -> None:
            raise ValueError("mine")

        event.listen(db.reader_engine.sync_engine, "connect", listener)
        await greenlet_spawn(pool._probe, replica)
        assert replica.is_up
        assert replica.in_use == 0
        with pytest.raises(ValueError, match="mine"):
            async with db.read() as session:
                await session.execute(ONE)


async def test_a_listener_whose_connection_ends(app: App) -> None:
    """That does say something of the server: it is down, and others read."""
    async with app.open(replicas=app.replica_urls[:1]) as db:
        await db.reader_engine.dispose()

        def listener(connection: Any, _record: object) -> None:
            execute(
                connection,
                "SELECT pg_terminate_backend(pg_backend_pid()) WHERE pg_is_in_recovery()",
            )

        event.listen(db.reader_engine.sync_engine, "connect", listener)
        async with db.read() as session:
            assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False
        assert db.statistics().servers[0].times_down == 1


def wrong_urls(app: App) -> dict[str, tuple[Any, str | None]]:
    """URLs that no connection can be opened by, and the SQLSTATE where the server gives one."""
    replica = app.cluster.replicas[0]
    return {
        "nobody listens": (app.url().set(port=free_port()), None),
        "no such database": (app.url().set(database="nowhere"), "3D000"),
        "no such user": (app.url().set(username="nobody"), "28000"),
        "no primary": (app.url(replica, target_session_attrs="primary"), None),
    }


WRONG = ["nobody listens", "no such database", "no such user", "no primary"]


@pytest.mark.parametrize("what", WRONG)
async def test_no_connection(app: App, what: str) -> None:
    """One error for all that is in the way, with the server's name and what it has said."""
    url, state = wrong_urls(app)[what]
    db = ServerDatabase(url)
    name = f"cannot connect to 127.0.0.1:{url.port}/{url.database}: "
    for engine in (db.writer_engine, db.reader_engine):
        with pytest.raises(OperationalError) as caught:
            async with engine.connect():
                pass
        error = caught.value
        assert name in str(error)
        if state is not None and app.driver == "asyncpg":  # libpq does not tell
            assert sqlstate_of(error) == state
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert not any(server.is_up for pool in pools(db) for server in pool.servers)
    with pytest.raises(OperationalError):
        await db.open()


async def test_a_wrong_argument_says_nothing_of_the_server(app: App) -> None:
    """It is raised as it is, by a replica, too."""
    db = app.open(replicas=app.replica_urls[:1], connect_args={"nothing": 1})
    for engine in (db.writer_engine, db.reader_engine):
        with pytest.raises(Exception, match="nothing") as caught:
            async with engine.connect():
                pass
        assert "cannot connect" not in str(caught.value)
    assert all(server.is_up for pool in pools(db) for server in pool.servers)


async def test_a_listener_of_checkin_that_raises(app: App) -> None:
    """The connection of the writer is back all the same, and so is the turn."""

    def fail(*_: object) -> None:
        raise KeyError("mine")

    async with app.open(replicas=[], read_timeout=5, write_timeout=5, readers=1) as db:
        await create_accounts(db)
        listen(db, "checkin", fail)
        for engine in (db.writer_engine, db.reader_engine):
            for _ in range(2):
                with pytest.raises(KeyError, match="mine"):
                    async with engine.begin() as connection:
                        await connection.execute(ONE)
            event.remove(engine.sync_engine, "checkin", fail)
        async with nothing_left(db), db.write() as session:
            session.add(Account(id=2))


async def test_a_listener_of_checkout_that_detaches(app: App) -> None:
    """The connection is the application's own, and its place is free, as with stock engines."""

    def detach(_connection: object, _record: object, proxied: Any) -> None:
        proxied.detach()

    drivers: list[Any] = []
    async with app.open(replicas=[], readers=1) as db, nothing_left(db):
        listen(db, "checkout", detach)
        for engine in (db.writer_engine, db.reader_engine):
            async with engine.connect() as first, engine.connect() as second:
                for connection in (first, second):
                    assert await connection.scalar(ONE) == 1
                    await connection.commit()
                    own: Any = connection.sync_connection
                    drivers.append(own.connection.dbapi_connection.driver_connection)
        for driver in drivers:  # SQLAlchemy leaves psycopg's open, on stock engines, too
            await driver.close()
