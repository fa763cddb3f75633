"""``isolation_level``, with the same meaning as in ``sqlite3``.

``sqlite3`` begins transactions implicitly in one of three ways, or never: with None, "the
connection is in autocommit mode"
(https://docs.python.org/3/library/sqlite3.html#sqlite3.Connection.isolation_level). Here, the
adapter begins them, with BEGIN IMMEDIATE for writes. So the strings make no difference; None does,
and so does ``autocommit=True``, its equivalent since Python 3.12.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError

_BY_ISOLATION_LEVEL = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL
_LEVELS = frozenset({"", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"})


def check_isolation_level(level: object) -> str | None:
    """Return ``level``, or raise the error of ``sqlite3`` for an invalid one."""
    if level is not None and not isinstance(level, str):
        raise TypeError("isolation_level must be str or None")
    if level is not None and level.upper() not in _LEVELS:
        raise ValueError(
            "isolation_level string must be '', 'DEFERRED', 'IMMEDIATE', or 'EXCLUSIVE', or None "
            f"for autocommit, not {level!r}"
        )
    return level


def check_connect_args(parameters: Mapping[str, Any]) -> None:
    """Refuse an ``isolation_level`` that ``sqlite3`` does not know, and name the valid ones."""
    try:
        check_isolation_level(parameters.get("isolation_level"))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"connect_args: {error}. For SQLAlchemy's isolation levels, such as AUTOCOMMIT, use "
            "isolation_level= in create_async_engine() or execution_options()"
        ) from None


def leave_to_driver(connection: sqlite3.Connection, level: str | None) -> None:
    """Let ``sqlite3`` begin transactions according to ``level``. Call in the connection's thread.

    An open transaction continues if the level does not change: ``sqlite3`` commits when it is set
    to None, even if it was None before (``pysqlite_connection_set_isolation_level()`` in CPython).
    """
    if connection.isolation_level != level:
        connection.isolation_level = level  # type: ignore[assignment]


def take_isolation_level(connection: sqlite3.Connection) -> str | None:
    """Leave transactions to the adapter, and return the level that the connection was opened with.

    None is autocommit. Call this in the connection's thread.
    """
    # "LEGACY_TRANSACTION_CONTROL: … The isolation_level attribute has effect", since Python 3.12.
    # With False, ``sqlite3`` would always keep a transaction open.
    autocommit = getattr(connection, "autocommit", _BY_ISOLATION_LEVEL)
    if autocommit != _BY_ISOLATION_LEVEL:
        connection.autocommit = _BY_ISOLATION_LEVEL  # type: ignore[attr-defined,unused-ignore]
    level: str | None = None if autocommit is True else connection.isolation_level
    connection.isolation_level = None
    return level
