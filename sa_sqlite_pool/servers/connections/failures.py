"""Errors that show that a server cannot be reached, or has closed a connection.

SQLAlchemy and an application's listeners set a connection up, and may raise other errors, which
say nothing about the server.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.exc import DBAPIError

from ...postgresql.sqlstate import CONNECTION_ENDED
from ..drivers.choosing import driver_of

_NO_CONNECTION = "sa_sqlite_pool_no_connection"


def no_connection(dialect: Dialect, server: str, error: Exception) -> Exception | None:
    """Return the error to raise instead of one that was raised while opening a connection.

    It is the driver's ``OperationalError``, and names the server: SQLAlchemy does not translate
    asyncpg's own errors, or not in all of its versions. Return None if ``error`` is not about the
    server but about a wrong argument.
    """
    said = driver_of(dialect).failure(error)
    return None if said is None else _cannot_connect(dialect, server, error, said)


def in_setting_up(dialect: Dialect, server: str, opened: Any, error: Exception) -> Exception | None:
    """Return the error to raise instead of ``error`` in setting up a connection; None to keep it.

    If the connection has been closed, it is the one of :func:`no_connection`. Any other error of
    asyncpg itself, which SQLAlchemy calls to set codecs, is returned in SQLAlchemy's form.

    :param opened: SQLAlchemy's adapted connection, which SQLAlchemy may have closed since
    """
    origin: Any = error.orig if isinstance(error, DBAPIError) else error
    if opened is None or hasattr(origin, _NO_CONNECTION):
        return None
    translated = driver_of(dialect).translated(opened, origin)
    if is_of_server(dialect, translated or origin):
        return _cannot_connect(dialect, server, translated or origin, str(origin))
    return translated


def _cannot_connect(dialect: Dialect, server: str, error: Exception, said: str) -> Exception:
    dbapi: Any = dialect.loaded_dbapi
    raised: Exception = dbapi.OperationalError(f"cannot connect to {server}: {said}")
    vars(raised).update(sqlstate=getattr(error, "sqlstate", None), **{_NO_CONNECTION: True})
    return raised


def is_of_server(dialect: Dialect, error: Exception) -> bool:
    """Return whether an error shows that a server cannot be reached, or has gone."""
    if hasattr(error, _NO_CONNECTION):
        return True
    dbapi: Any = dialect.loaded_dbapi
    if not isinstance(error, dbapi.Error):
        return False
    state = getattr(error, "sqlstate", None)
    if state is None:  # the driver itself has noticed
        return isinstance(error, dbapi.OperationalError) or dialect.is_disconnect(error, None, None)
    return str(state).startswith(CONNECTION_ENDED)
