"""A PgBouncer in front of each server, and ServerDatabase through them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL

from sa_sqlite_pool.servers.database import ServerDatabase
from tests.pgbouncer.bouncer import PgBouncer, can_follow
from tests.postgresql import App, app, cluster

__all__ = ["app", "cluster"]

# The options that docs/servers_pgbouncer.md recommends.
OPTIONS: dict[str, dict[str, Any]] = {
    "asyncpg": {
        "connect_args": {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        }
    },
    "psycopg": {"connect_args": {"prepare_threshold": None}},
}
# The option that SQLAlchemy's documentation recommends for asyncpg.
UNIQUE_NAMES = {
    **OPTIONS["asyncpg"]["connect_args"],
    "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
}


@dataclass(frozen=True)
class Pooled:
    """A test's own database, through a PgBouncer in front of the primary and one for a replica.

    The replica is the first of the cluster.
    """

    app: App
    primary: PgBouncer
    replica: PgBouncer

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of an engine that connects through PgBouncer."""
        return OPTIONS[self.app.driver]

    def url(self, bouncer: PgBouncer | None = None) -> URL:
        """Return the URL of the database through ``bouncer``, by default the primary's."""
        return self.app.url().set(port=(bouncer or self.primary).port)

    def open(self, **options: Any) -> ServerDatabase:
        """Return a :class:`ServerDatabase` through both."""
        options.setdefault("replicas", [self.url(self.replica)])
        return ServerDatabase(self.url(), **{**self.options, **options})


@pytest.fixture
def pooled(app: App) -> Iterator[Pooled]:
    """Provide the database of a test, through PgBouncer in transaction mode."""
    with _before(app) as pooled:
        yield pooled


@pytest.fixture
def followed(app: App) -> Iterator[Pooled]:
    """Provide the same, with a PgBouncer that tracks up to ten prepared statements per client."""
    if not can_follow():
        pytest.skip("this PgBouncer is older than 1.21")
    with _before(app, follows=10) as pooled:
        yield pooled


@contextmanager
def _before(app: App, **options: int) -> Iterator[Pooled]:
    directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    directory.chmod(0o755)
    bouncers: list[PgBouncer] = []
    try:
        for name, server in (
            ("primary", app.cluster.primary),
            ("replica", app.cluster.replicas[0]),
        ):
            bouncers.append(PgBouncer(directory / name, server, **options).start())
        yield Pooled(app, *bouncers)
    finally:
        for bouncer in bouncers:
            bouncer.kill()
        shutil.rmtree(directory, ignore_errors=True)
