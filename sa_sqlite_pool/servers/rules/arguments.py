"""Arguments of ``ServerDatabase``, which are checked before any server is asked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ...errors import ConfigurationError
from ..connections.server import hosts_of

_CHOSEN_HERE = frozenset(
    {
        *("async_creator", "creator", "max_overflow", "plugins", "pool", "pool_size", "poolclass"),
        *("pool_timeout", "isolation_level"),
    }
)

OF_SQLITE = frozenset(
    {
        *("file_turn", "group_commit", "keep_wal", "on_connect", "placement", "pragmas"),
        *("publish_status", "slow_statement_warning", "wal"),
    }
)
"""Options of ``SQLiteDatabase`` that ``ServerDatabase`` does not have."""

_DRIVERS = {"asyncpg": "asyncpg", "psycopg": "psycopg", "psycopg_async": "psycopg"}
"""Names of drivers in a URL, and the package of each; the first that is installed is the default"""


def check_engine_options(options: Mapping[str, Any]) -> None:
    """Raise :class:`~sa_sqlite_pool.ConfigurationError` for what an application cannot choose."""
    if of_sqlite := OF_SQLITE & options.keys():
        raise ConfigurationError(
            f"{', '.join(sorted(of_sqlite))}: of SQLiteDatabase alone, since a server has nothing "
            "of the kind; leave it out for ServerDatabase (docs/servers.md says what is in its "
            "place)"
        )
    chosen = _CHOSEN_HERE & options.keys()
    if "isolation_level" in (options.get("execution_options") or ()):
        chosen |= {"isolation_level"}
    if chosen:
        raise ConfigurationError(
            f"{', '.join(sorted(chosen))}: ServerDatabase chooses its pools and isolation "
            "levels; set writes, writers and readers, or make the engines yourself and use "
            "routing_sessionmaker()"
        )


def parse_url(what: str, url: str | URL, default_driver: str | None = None) -> URL:
    """Return a URL of PostgreSQL with a driver; ``what`` it is, for messages.

    One that names no driver, as hosters give it (``postgres://…``), gets ``default_driver``, or one
    that is installed. Raise :class:`~sa_sqlite_pool.ConfigurationError` if it cannot be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(f"{what} {url!r} cannot be used: {error}") from error
    if parsed.drivername in {"postgres", "postgresql"}:
        driver = default_driver or next(filter(find_spec, _DRIVERS), "asyncpg")
        parsed = parsed.set(drivername=f"postgresql+{driver}")
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"{what} {parsed!r} is not PostgreSQL's, which is the only server that ServerDatabase "
            "knows: use routing_sessionmaker() with engines of your own"
        )
    _check_driver(what, parsed)
    return parsed


def parse_replica(url: str | URL, primary: URL) -> URL:
    """Return the URL of a replica, by default with the driver of the primary's."""
    parsed = parse_url("a replica's URL", url, primary.drivername.partition("+")[2])
    if len(hosts := hosts_of(parsed)) > 1:
        raise ConfigurationError(
            f"the URL of a replica has the hosts {', '.join(hosts)}: what one shows another need "
            "not; give each a URL of its own in replicas (the URL of the primary may have several)"
        )
    return parsed


def _check_driver(what: str, url: URL) -> None:
    name = url.drivername.partition("+")[2]
    package = _DRIVERS.get(name)
    if package is None:
        try:
            # A dialect of the application's, perhaps, over one of the drivers.
            package = _DRIVERS.get(url.get_dialect().driver)
        except ArgumentError:  # there is none of that name
            package = None
    if package is None:
        raise ConfigurationError(
            f"{what} has the driver {name}, which is none that ServerDatabase knows: use "
            "postgresql+asyncpg or postgresql+psycopg"
        )
    if find_spec(package) is None:
        raise ConfigurationError(
            f"{package} is not installed: pip install 'sa-sqlite-pool[{package}]'"
        )
