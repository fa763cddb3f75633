"""What the drivers of PostgreSQL do each in their own way."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, Protocol, final

from sqlalchemy import Dialect
from sqlalchemy.util import await_only

from ..errors import ConfigurationError


class Driver(Protocol):
    """A driver; ``connection`` is SQLAlchemy's adapted connection, not the driver's own."""

    def value(self, connection: Any, sql: str) -> Any:
        """Return the first value of a query outside of any transaction. In a greenlet."""

    def abort(self, connection: Any) -> None:
        """Break the connection without asking the server; what waits for it raises an error."""


@final
class Asyncpg:
    """https://magicstack.github.io/asyncpg/"""

    def value(self, connection: Any, sql: str) -> Any:
        return await_only(connection.driver_connection.fetchval(sql))

    def abort(self, connection: Any) -> None:
        connection.driver_connection.terminate()


@final
class Psycopg:
    """https://www.psycopg.org/psycopg3/"""

    def value(self, connection: Any, sql: str) -> Any:
        return await_only(self._value(connection.driver_connection, sql))

    async def _value(self, driver: Any, sql: str) -> Any:
        # Local to the client: without autocommit the query would begin a transaction.
        autocommit = driver.autocommit
        if not autocommit:
            await driver.set_autocommit(True)
        try:
            row = await (await driver.execute(sql)).fetchone()
            return row[0]
        finally:
            if not autocommit and not driver.closed:
                await driver.set_autocommit(False)

    def abort(self, connection: Any) -> None:
        # close() frees what a task that waits for the socket still uses.
        with (
            suppress(OSError, Exception),
            socket.socket(fileno=os.dup(connection.driver_connection.pgconn.socket)) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)


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
            f"{dialect.name}+{dialect.driver} is none of the drivers that ServerDatabase knows: "
            "use a URL of postgresql+asyncpg or postgresql+psycopg"
        )
    return found
