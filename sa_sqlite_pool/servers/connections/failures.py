"""Errors that say that a server cannot be connected to, or has ended a connection.

An application's listeners may raise others while a connection is set up, which say nothing of it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect

from ...postgresql.sqlstate import CONNECTION_ENDED
from .drivers import driver_of

_NO_CONNECTION = "sa_sqlite_pool_no_connection"


def no_connection(dialect: Dialect, server: str, error: Exception) -> Exception | None:
    """Return the error to raise in the place of one of opening a connection.

    It is the driver's ``OperationalError``, and names the server: asyncpg's own are no errors of
    SQLAlchemy's, or not in all of its versions. None if ``error`` says nothing of the server, but
    that an argument is wrong.
    """
    said = driver_of(dialect).failure(error)
    if said is None:
        return None
    dbapi: Any = dialect.loaded_dbapi
    raised: Exception = dbapi.OperationalError(f"cannot connect to {server}: {said}")
    vars(raised).update(sqlstate=getattr(error, "sqlstate", None), **{_NO_CONNECTION: True})
    return raised


def is_of_server(dialect: Dialect, error: Exception) -> bool:
    """Return whether an error says that a server cannot be connected to, or has gone."""
    if hasattr(error, _NO_CONNECTION):
        return True
    dbapi: Any = dialect.loaded_dbapi
    if not isinstance(error, dbapi.Error):
        return False
    state = getattr(error, "sqlstate", None)
    if state is None:  # the driver itself has found out
        return isinstance(error, dbapi.OperationalError) or dialect.is_disconnect(error, None, None)
    return str(state).startswith(CONNECTION_ENDED)
