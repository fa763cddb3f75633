"""Parameters of the server that the copy depends on."""

from __future__ import annotations

from sqlalchemy import Connection

from .statements import execute

# The encoding of what is sent, the time zone and the styles of what is read back; limits that are
# not meant for a copy. The drivers learn of another encoding from the server, and of its end, too.
_SETTINGS = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}


def set_parameters(connection: Connection) -> None:
    """Set the parameters of the server for this transaction; then they are as they were."""
    for name, value in _SETTINGS.items():
        execute(connection, f"SET LOCAL {name} = '{value}'")
