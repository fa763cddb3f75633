"""What the rest of the package asks of a driver of PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from sqlalchemy import Dialect

CONNECT_SECONDS = 5
"""How long a connection may take to be opened, unless the application says otherwise."""

GIVEN_UP = "current transaction is aborted, commands ignored until end of transaction block"
"""The error of a COMMIT that the server takes for a ROLLBACK, in its words for what comes next."""


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

    def rows(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query outside of any transaction. In a greenlet."""

    def process_id(self, connection: Any) -> int:
        """Return the process of the server that works for the connection."""

    def in_transaction(self, connection: Any) -> bool:
        """Return whether a transaction has begun and not ended."""

    def has_open(self, connection: Any) -> bool:
        """Return whether the server has a transaction open; the adapter may take it for that."""

    def has_failed(self, connection: Any, error: Exception) -> bool:
        """Return whether the server has given up the transaction in which ``error`` was raised.

        It has not if the error is one of the driver's, such as for a parameter that it cannot
        encode. ``error`` is as the adapter raises it; nothing is sent.
        """

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


def row_of(connection: Any, sql: str) -> Any:
    """Execute SQL in the transaction of a DBAPI connection; return its first row, None without any.

    In a greenlet.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else None
    finally:
        cursor.close()
