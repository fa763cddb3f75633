"""A PostgreSQL primary and two replicas for all tests of a run, and a database for each test."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from examples.local_postgresql import PostgreSQL, create_primary, create_replica, missing
from examples.local_postgresql.server import free_port
from sa_sqlite_pool.servers.database import ServerDatabase

DRIVERS = ("asyncpg", "psycopg")

_SECONDS = 20.0
# Small, since it may be in memory; but a replica that was stopped must find what it has missed.
_LOG = {"min_wal_size": "32MB", "max_wal_size": "64MB", "wal_keep_size": "256MB"}
_numbers = count(1)


@dataclass(frozen=True)
class Cluster:
    """A primary, and replicas that follow it without delay."""

    primary: PostgreSQL
    replicas: tuple[PostgreSQL, ...]
    empty: list[str] = field(default_factory=list)  # databases that the next test may use

    @property
    def servers(self) -> tuple[PostgreSQL, ...]:
        """All servers, the primary first."""
        return (self.primary, *self.replicas)

    def caught_up(self) -> bool:
        """Return whether the replicas have everything that the primary has."""
        # Not the inserted position: at the end of a page, it is beyond the header of the next page,
        # which replicas only reach with the next record.
        wanted = _lsn(self.primary.sql("SELECT pg_current_wal_flush_lsn()"))
        return all(
            _lsn(replica.sql("SELECT pg_last_wal_replay_lsn()")) >= wanted
            for replica in self.replicas
        )


@dataclass(frozen=True)
class App:
    """A test's own database, named ``database``, on the servers of a cluster."""

    cluster: Cluster
    database: str
    driver: str

    def url(self, server: PostgreSQL | None = None, **query: str) -> URL:
        """Return the URL of the database on ``server``, by default the primary."""
        chosen = self.cluster.primary if server is None else server
        return chosen.url(self.driver, self.database, **query)

    @property
    def replica_urls(self) -> list[URL]:
        """The URLs of the database on the replicas."""
        return [self.url(replica) for replica in self.cluster.replicas]

    def sql(self, sql: str, server: PostgreSQL | None = None) -> str:
        """Execute SQL on a new connection, by default to the primary."""
        return (server or self.cluster.primary).sql(sql, self.database)

    async def someone_waits_for(self, lock: str, server: PostgreSQL | None = None) -> None:
        """Wait until a process of the database waits for a lock of the type ``lock``."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            f"AND wait_event_type = 'Lock' AND wait_event = '{lock}'"
        )
        await until(lambda: self.sql(waiting, server) != "0")

    def open(self, **options: Any) -> ServerDatabase:
        """Return a :class:`ServerDatabase` over the primary and the replicas."""
        options.setdefault("replicas", self.replica_urls)
        return ServerDatabase(self.url(), **options)


def start_cluster(directory: Path, replicas: int = 2) -> Cluster:
    """Start a primary and its replicas."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    primary = create_primary(directory / "primary", **_LOG)
    return Cluster(
        primary,
        tuple(create_replica(primary, directory / f"replica{i + 1}") for i in range(replicas)),
    )


@contextmanager
def own_cluster(replicas: int = 2) -> Iterator[Cluster]:
    """Start servers, and remove them at the end, also if SIGTERM ends this program."""
    ended = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    # Not in the directory of this run, which another user could not enter.
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    directory = Path(tempfile.mkdtemp(prefix="postgresql-", dir=root))
    directory.chmod(0o755)
    started: Cluster | None = None
    try:
        started = start_cluster(directory, replicas)
        yield started
    finally:
        for server in reversed(started.servers if started else ()):
            server.kill()
        shutil.rmtree(directory, ignore_errors=True)
        signal.signal(signal.SIGTERM, ended)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Provide the servers of this run; a test must leave them running and unchanged."""
    with own_cluster() as started:
        yield started


@pytest.fixture(params=DRIVERS)
def app(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[App]:
    """Provide an empty database, once with each driver."""
    yield from new_database(cluster, request.param)


def new_database(cluster: Cluster, driver: str) -> Iterator[App]:
    """Lend an empty database until the generator ends.

    A database that was lent before is reused, which costs a tenth of creating one, on each server;
    unless a test has left something there that only disappears with the database.
    """
    pytest.importorskip(driver)
    if cluster.empty:
        database = cluster.empty.pop()
    else:
        database = f"test{next(_numbers)}"
        cluster.primary.sql(f"CREATE DATABASE {database}")
    wait_until(cluster.caught_up)
    try:
        yield App(cluster, database, driver)
    finally:
        if cluster.primary.running:
            for server in cluster.servers:  # a replica's reader would delay its replay
                if server.running:
                    server.sql(_TERMINATE.format(database))
            if cluster.primary.sql(_EMPTY, database) == "t":
                cluster.empty.append(database)
            else:
                cluster.primary.sql(f"DROP DATABASE {database} WITH (FORCE)")


_TERMINATE = (
    f"SELECT pg_terminate_backend(pid, {int(_SECONDS * 1000)}) FROM pg_stat_activity "
    "WHERE datname = '{}'"
)

# The state after CREATE DATABASE, if the database itself was not changed: its settings and rights,
# large objects, extensions, and prepared transactions.
_EMPTY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    LOOP EXECUTE format('DROP SCHEMA %I CASCADE', name); END LOOP;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$;
SELECT datacl IS NULL
    AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = pg_database.oid)
    AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)
    AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = datname)
    AND (SELECT count(*) FROM pg_extension) = 1
FROM pg_database WHERE datname = current_database()
"""


def wait_until(condition: Callable[[], object], seconds: float = _SECONDS) -> None:
    """Poll a server until ``condition()`` is true, in this thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"


async def until(
    condition: Callable[[], object | Awaitable[object]], seconds: float = _SECONDS
) -> None:
    """Poll a server until ``condition()`` is true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert loop.time() < end, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0)


def _lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


__all__ = [
    "DRIVERS",
    "App",
    "Cluster",
    "app",
    "cluster",
    "free_port",
    "own_cluster",
    "until",
    "wait_until",
]
