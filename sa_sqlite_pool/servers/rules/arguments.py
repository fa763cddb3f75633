"""Arguments of ``ServerDatabase``, checked before any server is contacted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from ...errors import ConfigurationError
from ...postgresql.urls import server_url
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


def check_engine_options(options: Mapping[str, Any]) -> None:
    """Raise :class:`~sa_sqlite_pool.ConfigurationError` for options that cannot be chosen."""
    if of_sqlite := OF_SQLITE & options.keys():
        raise ConfigurationError(
            f"{', '.join(sorted(of_sqlite))}: only for SQLiteDatabase, since a server has no "
            "equivalent; leave it out for ServerDatabase (docs/servers.md says what replaces it)"
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


def parse_replica(url: str | URL, primary: URL) -> URL:
    """Return the URL of a replica, by default with the driver of the primary's URL."""
    driver = primary.drivername.partition("+")[2]
    parsed = server_url(url, what="a replica's URL", default_driver=driver)
    if len(hosts := hosts_of(parsed)) > 1:
        raise ConfigurationError(
            f"the URL of a replica has the hosts {', '.join(hosts)}: one host may not show "
            "what another shows; give each its own URL in replicas (the URL of the primary may "
            "have several)"
        )
    return parsed
