"""SQL that is executed as it is written."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text


def execute(connection: Connection, sql: str) -> None:
    """Execute a statement without parameters, whatever is in its names."""
    connection.execute(_as_it_is(sql))


def first(connection: Connection, sql: str) -> Any:
    """Return the first value that a query without parameters gives."""
    return connection.scalar(_as_it_is(sql))


def exists(connection: Connection, name: str) -> bool:
    """Return whether there is a relation of that name, as SQL has it."""
    query = text("SELECT to_regclass(:name) IS NOT NULL")
    return bool(connection.scalar(query, {"name": name}))


def _as_it_is(sql: str) -> Any:
    # A colon in a definition is no parameter.
    return text(sql.replace("\\", "\\\\").replace(":", "\\:"))
