"""What the rest of the package requires of a PostgreSQL driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from sqlalchemy import Dialect

CONNECT_SECONDS = 5
"""How long opening a connection may take, unless the application says otherwise."""

GIVEN_UP = "current transaction is aborted, commands ignored until end of transaction block"
"""The error of a COMMIT that the server executes as a ROLLBACK: its text for other statements."""


class Driver(Protocol):
    """A driver; ``connection`` is SQLAlchemy's adapted connection, not the driver's own."""

    def connect_arguments(
        self, named: Mapping[str, Any], settings: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect()``.

        :param named: the arguments of the URL and of the application, which take precedence
        :param settings: server parameters for the whole connection
        """

    def connect(self, dialect: Dialect) -> Callable[..., Awaitable[Any]]:
        """Return the function that opens one of the driver's own connections."""

    def failure(self, error: Exception) -> str | None:
        """Return what an error in opening a connection says about the server, None if nothing."""

    def translated(self, connection: Any, error: Exception) -> Exception | None:
        """Return SQLAlchemy's form of one of the driver's own errors, None for any other error."""

    def rows(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query outside of any transaction. Must run in a greenlet."""

    def process_id(self, connection: Any) -> int:
        """Return the PID of the server process behind the connection."""

    def in_transaction(self, connection: Any) -> bool:
        """Return whether a transaction has begun and not ended."""

    def has_open(self, connection: Any) -> bool:
        """Return whether a transaction is open on the server, not only for the adapter."""

    def has_failed(self, connection: Any, error: Exception) -> bool:
        """Return whether the server has aborted the transaction in which ``error`` was raised.

        It has not if the error is the driver's own, for example for a parameter that it cannot
        encode. ``error`` is the one that the adapter raises; nothing is sent.
        """

    def commit(self, connection: Any, send: Callable[[], None]) -> None:
        """Commit by ``send()``, and raise an error if the server rolls back instead.

        It does so if it has aborted the transaction after an error, and says so only in the tag
        of COMMIT: https://www.postgresql.org/docs/current/sql-commit.html. Must run in a greenlet.
        """

    def begin(self, connection: Any) -> None:
        """Begin a transaction for whatever comes first in it, even work in the driver alone.

        Nothing is sent if the driver itself begins transactions for such work, too, or if one is
        open. A transaction that was ended behind the adapter's back begins again. Must run in a
        greenlet.
        """

    def activity(self, connection: Any) -> object:
        """Return a value that changes whenever anything is done on the connection, by any means.

        Where that cannot be known, each call returns another value.
        """

    def is_broken(self, connection: Any) -> bool:
        """Return whether the connection was closed, be it by the server; nothing is sent."""

    def was_silent(self, connection: Any) -> bool:
        """Return whether it was closed because the server did not confirm a cancellation."""

    def abort(self, connection: Any) -> None:
        """Break the connection without asking the server; whatever waits for it gets an error."""

    def drop(self, opened: Any) -> None:
        """Close an unused connection of the driver's own, without asking the server."""


def row_of(connection: Any, sql: str) -> Any:
    """Execute SQL in the transaction of a DBAPI connection; return the first row, None if no rows.

    Must run in a greenlet.
    """
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else None
    finally:
        cursor.close()
