"""What the drivers of PostgreSQL do each in their own way."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, final

from sqlalchemy import Dialect
from sqlalchemy.util import await_only

from ...errors import ConfigurationError
from .program import application_name

# As the server says it to the next statement.
_GIVEN_UP = "current transaction is aborted, commands ignored until end of transaction block"

CONNECT_SECONDS = 5
"""How long a connection may take to be opened, unless the application says otherwise."""


class Driver(Protocol):
    """A driver; ``connection`` is SQLAlchemy's adapted connection, not the driver's own."""

    def connect_arguments(
        self, named: Mapping[str, Any], settings: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect()``.

        :param named: those of the URL and of the application, which win
        :param settings: parameters of the server for the whole connection
        """

    def connect(self, dialect: Dialect) -> Callable[..., Awaitable[Any]]:
        """Return the function that opens a connection of the driver's own."""

    def failure(self, error: Exception) -> str | None:
        """Return what an error of opening a connection says of the server, None if nothing."""

    def translated(self, connection: Any, error: Exception) -> Exception | None:
        """Return SQLAlchemy's form of an error of the driver's own, None if it is no such error."""

    def value(self, connection: Any, sql: str) -> Any:
        """Return the first value of a query outside of any transaction. In a greenlet."""

    def rows(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query outside of any transaction. In a greenlet."""

    def process_id(self, connection: Any) -> int:
        """Return the process of the server that works for the connection."""

    def in_transaction(self, connection: Any) -> bool:
        """Return whether a transaction has begun and not ended."""

    def has_open(self, connection: Any) -> bool:
        """Return whether the server has a transaction open; the adapter may take it for that."""

    def commit(self, connection: Any, send: Callable[[], None]) -> None:
        """Commit by ``send()``, and raise an error if the server rolls back instead.

        It does so if it has given the transaction up after an error, and says it in the tag of
        COMMIT alone: https://www.postgresql.org/docs/current/sql-commit.html. In a greenlet.
        """

    def begin(self, connection: Any) -> None:
        """Begin a transaction for whatever comes first in it, be it the driver's own work.

        Nothing is sent where the driver begins by itself, for what is the driver's own, too; nor
        where one has begun. One that was ended behind the adapter's back begins again. In a
        greenlet.
        """

    def activity(self, connection: Any) -> object:
        """Return what has changed when anything was done on the connection since, by whomever.

        Where that is not known, it always has.
        """

    def is_broken(self, connection: Any) -> bool:
        """Return whether the connection has ended, also by the server; nothing is sent."""

    def was_silent(self, connection: Any) -> bool:
        """Return whether it has ended since the server did not confirm a cancellation."""

    def abort(self, connection: Any) -> None:
        """Break the connection without asking the server; what waits for it raises an error."""

    def drop(self, opened: Any) -> None:
        """Close a connection of the driver's own that nothing uses, without asking the server."""


@final
class Asyncpg:
    """https://magicstack.github.io/asyncpg/"""

    def connect_arguments(
        self, named: Mapping[str, Any], settings: Mapping[str, str]
    ) -> dict[str, Any]:
        own = {"application_name": os.environ.get("PGAPPNAME") or application_name(), **settings}
        given = named.get("server_settings") or {}
        return {"timeout": CONNECT_SECONDS, **named, "server_settings": {**own, **given}}

    def connect(self, dialect: Dialect) -> Callable[..., Awaitable[Any]]:
        from ..activity.copies import CountedConnection  # noqa: PLC0415

        dbapi: Any = dialect.loaded_dbapi
        return partial(dbapi.asyncpg.connect, connection_class=CountedConnection)

    def failure(self, error: Exception) -> str | None:
        from asyncpg import TargetServerAttributeNotMatched  # noqa: PLC0415

        origin = error.__cause__ if type(error).__module__.startswith("sqlalchemy.") else error
        if isinstance(origin, asyncio.TimeoutError):
            return "it did not answer in time"
        is_of_server = isinstance(origin, (OSError, TargetServerAttributeNotMatched))
        if is_of_server or getattr(origin, "sqlstate", None) is not None:
            return str(origin) or type(origin).__name__
        return None

    def translated(self, connection: Any, error: Exception) -> Exception | None:
        try:
            connection._handle_exception(error)
        except Exception as found:
            return None if found is error else found
        return None

    def value(self, connection: Any, sql: str) -> Any:
        return self.rows(connection, sql)[0][0]

    def rows(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        try:
            return [tuple(row) for row in await_only(connection.driver_connection.fetch(sql))]
        except Exception as error:
            if (translated := self.translated(connection, error)) is not None:
                raise translated from error
            raise

    def process_id(self, connection: Any) -> int:
        return int(connection.driver_connection.get_server_pid())

    def in_transaction(self, connection: Any) -> bool:
        return connection._transaction is not None

    def has_open(self, connection: Any) -> bool:
        driver = connection.driver_connection
        return not driver.is_closed() and bool(driver.is_in_transaction())

    def commit(self, connection: Any, send: Callable[[], None]) -> None:
        from asyncpg import InFailedSQLTransactionError  # noqa: PLC0415

        send()
        driver = connection.driver_connection
        if getattr(driver, "was_given_up", False):
            driver.was_given_up = False
            connection._handle_exception(InFailedSQLTransactionError(_GIVEN_UP))

    def begin(self, connection: Any) -> None:
        if connection._transaction is not None:
            driver = connection.driver_connection
            if driver.is_closed() or driver.is_in_transaction():
                return
            connection.rollback()  # a text has ended it: the adapter still takes it for begun
        await_only(connection._start_transaction())

    def activity(self, connection: Any) -> object:
        driver = connection.driver_connection
        copies, protocol = getattr(driver, "copies", None), getattr(driver, "_protocol", None)
        if copies is None or protocol is None:  # a class of the application's, or it has ended
            return object()
        return copies, protocol.queries_count

    def is_broken(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # The driver notices in a later iteration of the event loop than the system does.
        return bool(driver.is_closed()) or _has_hung_up(_socket_of(driver))

    def was_silent(self, connection: Any) -> bool:
        return False  # it does not wait: what comes next does

    def abort(self, connection: Any) -> None:
        connection.driver_connection.terminate()

    def drop(self, opened: Any) -> None:
        opened.terminate()


@final
class Psycopg:
    """https://www.psycopg.org/psycopg3/"""

    def connect_arguments(
        self, named: Mapping[str, Any], settings: Mapping[str, str]
    ) -> dict[str, Any]:
        # "Specifies a fallback value for the application_name configuration parameter":
        # https://www.postgresql.org/docs/current/libpq-connect.html
        own: dict[str, Any] = {"fallback_application_name": application_name()}
        if "PGCONNECT_TIMEOUT" not in os.environ:
            own["connect_timeout"] = CONNECT_SECONDS
        if settings:
            given = named.get("options") or os.environ.get("PGOPTIONS", "")
            words = [*(f"-c {name}={value}" for name, value in settings.items()), given]
            return {**own, **named, "options": " ".join(filter(None, words))}
        return {**own, **named}

    def connect(self, dialect: Dialect) -> Callable[..., Awaitable[Any]]:
        from .psycopg import PromptConnection  # noqa: PLC0415

        return PromptConnection.connect

    def failure(self, error: Exception) -> str | None:
        from psycopg import OperationalError  # noqa: PLC0415

        if isinstance(error, asyncio.TimeoutError):
            return "it did not answer in time"
        if isinstance(error, (OSError, OperationalError)):
            return str(error) or type(error).__name__
        return None

    def translated(self, connection: Any, error: Exception) -> Exception | None:
        return None  # they are SQLAlchemy's own

    def value(self, connection: Any, sql: str) -> Any:
        return self.rows(connection, sql)[0][0]

    def rows(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        return list(await_only(self._rows(connection.driver_connection, sql)))

    async def _rows(self, driver: Any, sql: str) -> list[tuple[Any, ...]]:
        # Local to the client: without autocommit the query would begin a transaction.
        autocommit = driver.autocommit
        if not autocommit:
            await driver.set_autocommit(True)
        try:
            found: list[tuple[Any, ...]] = await (await driver.execute(sql)).fetchall()
            return found
        finally:
            if not autocommit and not driver.closed:
                await driver.set_autocommit(False)

    def process_id(self, connection: Any) -> int:
        return int(connection.driver_connection.info.backend_pid)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.driver_connection.pgconn.transaction_status)  # 0: idle

    def has_open(self, connection: Any) -> bool:
        return self.in_transaction(connection)

    def commit(self, connection: Any, send: Callable[[], None]) -> None:
        from psycopg.errors import InFailedSqlTransaction  # noqa: PLC0415
        from psycopg.pq import TransactionStatus  # noqa: PLC0415

        status = connection.driver_connection.pgconn.transaction_status
        if status == TransactionStatus.INERROR:
            connection.rollback()
            raise InFailedSqlTransaction(_GIVEN_UP)
        send()

    def begin(self, connection: Any) -> None:
        pass  # it does so with the first statement on its connection, whoever executes it

    def activity(self, connection: Any) -> object:
        operations = getattr(connection.driver_connection, "operations", None)
        return object() if operations is None else operations

    def is_broken(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # The driver notices with its next statement.
        return bool(driver.closed) or _has_hung_up(driver.pgconn.socket)

    def was_silent(self, connection: Any) -> bool:
        return bool(getattr(connection.driver_connection, "silent", False))

    def abort(self, connection: Any) -> None:
        from .psycopg import shut_down  # noqa: PLC0415

        shut_down(connection.driver_connection)

    def drop(self, opened: Any) -> None:
        opened.pgconn.finish()


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
