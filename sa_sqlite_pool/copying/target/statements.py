"""SQL that is executed exactly as written, and the server parameters for a copy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

# The encoding of what is sent, the time zone and the styles of what is read back; limits that are
# not meant for a copy. The server tells the drivers when the encoding changes, and changes back.
_SETTINGS = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",  # since PostgreSQL 17
}
# Some names there have capitals, such as "TimeZone".
_SET = text("SELECT set_config(name, :value, TRUE) FROM pg_settings WHERE lower(name) = :name")


def set_parameters(connection: Connection) -> None:
    """Set the server parameters for this transaction; its end restores them."""
    for name, value in _SETTINGS.items():
        connection.execute(_SET, {"name": name, "value": value})


def execute(connection: Connection, sql: str) -> Any:
    """Execute a statement without parameters, whatever its names contain; return its result."""
    return connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def exists(connection: Connection, name: str) -> bool:
    """Return whether there is a relation of that name, as it is written in SQL."""
    query = text("SELECT to_regclass(:name) IS NOT NULL")
    return bool(connection.scalar(query, {"name": name}))
