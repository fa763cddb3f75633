"""asyncpg, whose connection SQLAlchemy adapts to the DBAPI."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, final

from sqlalchemy import Dialect
from sqlalchemy.util import await_only

from .interface import CONNECT_SECONDS, GIVEN_UP
from .program import application_name
from .sockets import has_hung_up, socket_of


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
        from .asyncpg_connection import CountedConnection  # noqa: PLC0415

        dbapi: Any = dialect.loaded_dbapi
        return partial(dbapi.asyncpg.connect, connection_class=CountedConnection)

    def failure(self, error: Exception) -> str | None:
        from asyncpg import TargetServerAttributeNotMatched  # noqa: PLC0415

        origin = error.__cause__ if type(error).__module__.startswith("sqlalchemy.") else error
        if isinstance(origin, asyncio.TimeoutError):
            return "it did not respond in time"
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

    def has_failed(self, connection: Any, error: Exception) -> bool:
        # The protocol does not expose the state that it knows. A message of the server has a
        # severity; the driver's own errors may have an SQLSTATE, too.
        return getattr(error.__cause__, "severity", None) is not None

    def commit(self, connection: Any, send: Callable[[], None]) -> None:
        send()
        driver = connection.driver_connection
        if getattr(driver, "was_given_up", False):
            from asyncpg import InFailedSQLTransactionError  # noqa: PLC0415

            driver.was_given_up = False
            connection._handle_exception(InFailedSQLTransactionError(GIVEN_UP))

    def begin(self, connection: Any) -> None:
        if connection._transaction is not None:
            driver = connection.driver_connection
            if driver.is_closed() or driver.is_in_transaction():
                return
            connection.rollback()  # SQL text has ended it, but not for the adapter
        await_only(connection._start_transaction())

    def activity(self, connection: Any) -> object:
        driver = connection.driver_connection
        copies, protocol = getattr(driver, "copies", None), getattr(driver, "_protocol", None)
        if copies is None or protocol is None:  # the application's own class, or closed
            return object()
        return copies, protocol.queries_count

    def is_broken(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # The driver notices later than the system does, in another lap of the event loop.
        return bool(driver.is_closed()) or has_hung_up(socket_of(driver))

    def was_silent(self, connection: Any) -> bool:
        return False  # it does not wait: the next operation does

    def abort(self, connection: Any) -> None:
        connection.driver_connection.terminate()

    def drop(self, opened: Any) -> None:
        opened.terminate()
