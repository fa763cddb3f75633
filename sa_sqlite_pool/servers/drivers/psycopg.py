"""psycopg, version 3."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, final

from sqlalchemy import Dialect
from sqlalchemy.util import await_only

from .interface import CONNECT_SECONDS, GIVEN_UP
from .program import application_name
from .sockets import has_hung_up

# https://www.psycopg.org/psycopg3/docs/api/pq.html#psycopg.pq.TransactionStatus
_IDLE, _IN_ERROR = 0, 3


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
        from .psycopg_connection import PromptConnection  # noqa: PLC0415

        return PromptConnection.connect

    def failure(self, error: Exception) -> str | None:
        from psycopg import OperationalError  # noqa: PLC0415

        if isinstance(error, asyncio.TimeoutError):
            return "it did not respond in time"
        if isinstance(error, (OSError, OperationalError)):
            return str(error) or type(error).__name__
        return None

    def translated(self, connection: Any, error: Exception) -> Exception | None:
        return None  # SQLAlchemy uses psycopg's errors as they are

    def rows(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        return list(await_only(self._rows(connection.driver_connection, sql)))

    async def _rows(self, driver: Any, sql: str) -> list[tuple[Any, ...]]:
        # This is local to the client: without autocommit, the query would begin a transaction.
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
        return bool(connection.driver_connection.pgconn.transaction_status != _IDLE)

    def has_open(self, connection: Any) -> bool:
        return self.in_transaction(connection)

    def has_failed(self, connection: Any, error: Exception) -> bool:
        return bool(connection.driver_connection.pgconn.transaction_status == _IN_ERROR)

    def commit(self, connection: Any, send: Callable[[], None]) -> None:
        if connection.driver_connection.pgconn.transaction_status == _IN_ERROR:
            from psycopg.errors import InFailedSqlTransaction  # noqa: PLC0415

            connection.rollback()
            raise InFailedSqlTransaction(GIVEN_UP)
        send()

    def begin(self, connection: Any) -> None:
        pass  # psycopg does so with the first statement on its connection, whatever executes it

    def activity(self, connection: Any) -> object:
        operations = getattr(connection.driver_connection, "operations", None)
        return object() if operations is None else operations

    def is_broken(self, connection: Any) -> bool:
        driver = connection.driver_connection
        # The driver notices only with its next statement.
        return bool(driver.closed) or has_hung_up(driver.pgconn.socket)

    def was_silent(self, connection: Any) -> bool:
        return bool(getattr(connection.driver_connection, "silent", False))

    def abort(self, connection: Any) -> None:
        from .psycopg_connection import shut_down  # noqa: PLC0415

        shut_down(connection.driver_connection)

    def drop(self, opened: Any) -> None:
        opened.pgconn.finish()
