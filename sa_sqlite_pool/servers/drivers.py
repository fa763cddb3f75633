"""What the drivers of PostgreSQL do each in their own way."""

from __future__ import annotations

import os
import select
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

    def is_broken(self, connection: Any) -> bool:
        """Return whether the connection is closed, also by the server; nothing is sent."""


@final
class Asyncpg:
    """https://magicstack.github.io/asyncpg/"""

    def value(self, connection: Any, sql: str) -> Any:
        try:
            return await_only(connection.driver_connection.fetchval(sql))
        except Exception as error:
            connection._handle_exception(error)  # raises the DB-API's error, as its cursors do
            raise

    def abort(self, connection: Any) -> None:
        connection.driver_connection.terminate()

    def is_broken(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # The driver notices in a later iteration of the event loop than the system does.
        return bool(driver.is_closed()) or _has_hung_up(_socket_of(driver))


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

    def is_broken(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # The driver notices with its next statement.
        return bool(driver.closed) or _has_hung_up(driver.pgconn.socket)


def _socket_of(driver: Any) -> int | None:
    transport = getattr(driver, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    return None if found is None else int(found.fileno())


def _has_hung_up(descriptor: int | None) -> bool:
    """Return whether the other end has closed; False where the system cannot tell.

    An error message of the server may be left to read: "POLLRDHUP: Stream socket peer closed
    connection, or shut down writing half of connection", poll(2).
    """
    if descriptor is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))  # POLLHUP always is
    return bool(poll.poll(0))


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
