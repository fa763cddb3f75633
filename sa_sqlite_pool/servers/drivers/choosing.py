"""The driver that a URL names."""

from __future__ import annotations

from sqlalchemy import Dialect

from ...errors import ConfigurationError
from .asyncpg import Asyncpg
from .interface import Driver
from .psycopg import Psycopg

_DRIVERS: dict[str, Driver] = {
    "asyncpg": Asyncpg(),
    "psycopg": Psycopg(),
    "psycopg_async": Psycopg(),
}


def driver_of(dialect: Dialect) -> Driver:
    """Return the driver of a dialect, or raise :class:`~sa_sqlite_pool.ConfigurationError`."""
    found = _DRIVERS.get(dialect.driver) if dialect.name == "postgresql" else None
    if found is None:
        raise ConfigurationError(
            f"{dialect.name}+{dialect.driver} is not a driver that ServerDatabase supports: "
            "use a postgresql+asyncpg or postgresql+psycopg URL"
        )
    return found
