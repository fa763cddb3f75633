"""Auto sessions on a primary and one replica, over plain engines and over a ``ServerDatabase``."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from examples.local_postgresql import PostgreSQL
from sa_sqlite_pool import routing_sessionmaker
from tests.postgresql import DRIVERS, App, Cluster, until, wait_until

from .models import Account, Base

KINDS = ("plain", "facade")

# The backends of the test's own database, except the querying one.
_BACKENDS = """
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND application_name <> 'psql'
"""


@dataclass(frozen=True)
class Routed:
    """A session maker over ``writer``, the primary, and ``reader``, the replica.

    ``went`` lists the destination of each statement of its sessions: ``"reader"`` or ``"writer"``.
    """

    app: App
    maker: async_sessionmaker[AsyncSession]
    writer: AsyncEngine
    reader: AsyncEngine
    went: list[str] = field(default_factory=list)

    @property
    def replica(self) -> PostgreSQL:
        """The server that serves reads."""
        return self.app.cluster.replicas[0]

    def watch(self) -> None:
        """Record the destinations of statements from now on."""
        for name, engine in (("writer", self.writer), ("reader", self.reader)):
            event.listen(
                engine.sync_engine,
                "before_cursor_execute",
                lambda *_, name=name: self.went.append(name),
            )

    async def balance(self) -> int:
        """Return the balance of account 1 on the primary."""
        async with self.writer.connect() as connection:
            found = await connection.scalar(text("SELECT balance FROM accounts WHERE id = 1"))
            return int(found or 0)

    async def in_transaction(self) -> int:
        """Return the number of connections in a transaction on the replica."""
        sql = f"SELECT count(*) {_BACKENDS} AND state LIKE 'idle in transaction%'"
        return int(self.app.sql(sql, self.replica))

    async def end_readers(self) -> None:
        """End all backends on the replica, as an administrator may."""
        sql = f"SELECT count(pg_terminate_backend(pid)) {_BACKENDS}"
        assert int(self.app.sql(sql, self.replica)) > 0
        sql = f"SELECT count(*) {_BACKENDS}"
        await until(lambda: self.app.sql(sql, self.replica) == "0")

    async def caught_up(self) -> None:
        """Wait until the replica has everything that the primary has."""
        await until(self.app.cluster.caught_up)


@asynccontextmanager
async def open_routed(app: App, kind: str) -> AsyncIterator[Routed]:
    """Open engines, plain ones or a facade's, with only account 1, of 10, on both servers."""
    replica = app.cluster.replicas[0]
    async with _engines(app, kind, replica) as routed:
        async with routed.writer.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO accounts (id, balance) VALUES (1, 10)"))
        await routed.caught_up()
        routed.watch()
        yield routed


@asynccontextmanager
async def _engines(app: App, kind: str, replica: PostgreSQL) -> AsyncIterator[Routed]:
    if kind == "facade":
        async with app.open(replicas=[app.url(replica)]) as db:
            yield Routed(app, db.sessionmaker, db.writer_engine, db.reader_engine)
        return
    writer, reader = create_async_engine(app.url()), create_async_engine(app.url(replica))
    try:
        yield Routed(app, routing_sessionmaker(writer=writer, reader=reader), writer, reader)
    finally:
        await writer.dispose()
        await reader.dispose()


@pytest.fixture(scope="session")
def routed_database(cluster: Cluster) -> Iterator[str]:
    """Provide the name of a database that the tests of routing use one after the other."""
    cluster.primary.sql("CREATE DATABASE routed")
    wait_until(cluster.caught_up)
    yield "routed"
    cluster.primary.sql("DROP DATABASE routed WITH (FORCE)")


@pytest.fixture(params=[f"{kind}-{driver}" for kind in KINDS for driver in DRIVERS])
async def routed(
    cluster: Cluster, routed_database: str, request: pytest.FixtureRequest
) -> AsyncIterator[Routed]:
    """Provide auto sessions, over each kind of engines and with each driver."""
    kind, driver = request.param.split("-")
    pytest.importorskip(driver)
    async with open_routed(App(cluster, routed_database, driver), kind) as found:
        yield found
        gc.collect()  # frees cursors that a test has left while its own warning filters apply


async def increase(session: AsyncSession, by: int = 1) -> None:
    """Read account 1 and write it, as applications do."""
    account: Any = await session.get_one(Account, 1)
    account.balance += by
    await session.flush()
