"""A server ends a connection while it is being opened: the error is that of a failed connection."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.util import await_only

from sa_sqlite_pool import ServerDatabase
from tests.postgresql import App, until
from tests.servers.doing import ONE
from tests.servers.freezing import nothing_left, pools
from tests.servers.test_connect_listeners import execute

END = "SELECT pg_terminate_backend(pg_backend_pid())"


class Ends:
    """Listeners that end connections at some point while they are opened, while ``now`` is set.

    :param replicas: whether only connections to replicas are ended
    """

    def __init__(self, app: App, *, replicas: bool = False) -> None:
        self.now = True
        self.times = 0
        self._app = app
        self._servers = app.cluster.replicas if replicas else app.cluster.servers
        self._end_this = END + (" WHERE pg_is_in_recovery()" if replicas else "")

    def as_opened(self, db: ServerDatabase) -> None:
        """End it before SQLAlchemy, or anything else, sets it up."""

        def do_connect(dialect: Any, _record: object, args: Any, options: Any) -> Any:
            connection = dialect.connect(*args, **options)
            if self.now:
                self.times += 1
                driver = connection.driver_connection
                if self._end(connection) and self._app.driver == "asyncpg":
                    await_only(until(driver.is_closed))  # it notices only after some time
            return connection

        self._listen(db, "do_connect", do_connect)

    def in_a_listener(self, db: ServerDatabase) -> None:
        """End it in a statement of a "connect" listener."""

        def connect(connection: Any, _record: object) -> None:
            if self.now:
                self.times += 1
                execute(connection, self._end_this)

        self._listen(db, "connect", connect)

    def after_a_listener(self, db: ServerDatabase) -> None:
        """End it after a listener has begun a transaction, which is committed next."""

        def connect(connection: Any, _record: object) -> None:
            if self.now:
                self.times += 1
                execute(connection, "SET work_mem = '5MB'")
                self._end(connection)

        self._listen(db, "connect", connect)

    def _end(self, connection: Any) -> bool:
        driver = connection.driver_connection
        is_asyncpg = self._app.driver == "asyncpg"
        pid = driver.get_server_pid() if is_asyncpg else driver.info.backend_pid
        sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        sql += f"WHERE pid = {pid} AND datname = current_database()"
        return "t" in [self._app.sql(sql, server) for server in self._servers]

    def _listen(self, db: ServerDatabase, name: str, listener: Callable[..., Any]) -> None:
        for engine in (db.writer_engine, db.reader_engine):
            event.listen(engine.sync_engine, name, listener)


MOMENTS = pytest.mark.parametrize(
    "moment", [Ends.as_opened, Ends.in_a_listener, Ends.after_a_listener], ids=lambda m: m.__name__
)


@MOMENTS
async def test_the_error_names_the_server(app: App, moment: Callable[..., None]) -> None:
    """The error is SQLAlchemy's, caused by the driver's, and no connection is left behind."""
    ends = Ends(app)
    db = app.open(replicas=[])
    moment(ends, db)
    async with nothing_left(db):
        for engine in (db.writer_engine, db.reader_engine):
            with pytest.raises(OperationalError) as caught:
                async with engine.connect() as connection:
                    await connection.execute(ONE)
            name = f"cannot connect to 127.0.0.1:{app.cluster.primary.port}/{app.database}: "
            assert name in str(caught.value)
            assert str(caught.value).count("cannot connect") == 1
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        assert ends.times == 2
        ends.now = False
        async with db, db.write() as session:
            await session.execute(ONE)


@MOMENTS
async def test_others_read(app: App, moment: Callable[..., None]) -> None:
    """Another server serves the read if a replica ends its connections."""
    if (app.driver, moment) == ("psycopg", Ends.as_opened):
        pytest.skip("nothing is asked of the server then, if it is not the first connection")
    ends = Ends(app, replicas=True)
    async with app.open(replicas=app.replica_urls[:1]) as db:
        await db.reader_engine.dispose()
        moment(ends, db)

        async with db.read() as session:
            assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False
        assert db.statistics().servers[0].times_down == 1


async def test_a_connection_that_is_opened_once_more(app: App) -> None:
    """SQLAlchemy reconnects if a "checkout" listener rejects a connection, with the same error."""
    ends = Ends(app)
    ends.now = False
    db = app.open(replicas=[])
    ends.in_a_listener(db)

    def check(_connection: object, _record: object, _proxied: object) -> None:
        if ends.now:
            raise DisconnectionError("old")

    event.listen(db.writer_engine.sync_engine, "checkout", check)
    async with db, nothing_left(db):
        async with db.write() as session:
            await session.execute(ONE)
        ends.now = True
        with pytest.raises(OperationalError, match="cannot connect to 127"):
            async with db.write() as session:
                await session.execute(ONE)
        assert ends.times == 1


async def test_a_listener_whose_statement_fails(app: App) -> None:
    """The statement's error is raised, and the server does not count as down."""

    def connect(connection: Any, _record: object) -> None:
        execute(connection, "SELECT 1 / 0")

    db = app.open(replicas=app.replica_urls[:1])
    for engine in (db.writer_engine, db.reader_engine):
        event.listen(engine.sync_engine, "connect", connect)
        with pytest.raises(DBAPIError, match="division by zero") as caught:
            async with engine.connect():
                pass
        assert "cannot connect" not in str(caught.value)
    assert all(server.is_up for pool in pools(db) for server in pool.servers)
