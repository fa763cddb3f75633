"""Errors that say that a server cannot be connected to, or has ended a connection.

SQLAlchemy and an application's listeners set a connection up, and may raise others, which say
nothing of the server.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.exc import DBAPIError

from ...postgresql.sqlstate import CONNECTION_ENDED
from ..drivers.choosing import driver_of

_NO_CONNECTION = "sa_sqlite_pool_no_connection"


def no_connection(dialect: Dialect, server: str, error: Exception) -> Exception | None:
    """Return the error to raise in the place of one of opening a connection.

    It is the driver's ``OperationalError``, and names the server: asyncpg's own are no errors of
    SQLAlchemy's, or not in all of its versions. None if ``error`` says nothing of the server, but
    that an argument is wrong.
    """
    said = driver_of(dialect).failure(error)
    return None if said is None else _cannot_connect(dialect, server, error, said)


def in_setting_up(dialect: Dialect, server: str, opened: Any, error: Exception) -> Exception | None:
    """Return the error to raise in the place of one of setting up a connection; None for that.

    If the connection has ended, it is that of :func:`no_connection`. Any other of asyncpg's own,
    which SQLAlchemy calls for its codecs, is SQLAlchemy's form of it.

    :param opened: SQLAlchemy's adapted connection, which it may have closed since
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
