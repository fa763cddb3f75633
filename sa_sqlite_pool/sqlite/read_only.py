"""Connections that SQLite has opened read-only for a temporary reason.

If a file cannot be opened for writing (for example, because no file descriptor is left), SQLite
opens it for reading without an error (``unixOpen()`` in its os_unix.c), and likewise the log and
its index. Every write on such a connection fails with SQLITE_READONLY; only a new connection helps.
"""

from __future__ import annotations

import os
import sqlite3

from .inspection import ask

_FILES = ("", "-wal", "-shm")


def should_write(connection: sqlite3.Connection, file: str) -> bool:
    """Return whether only the connection itself prevents writes to the database ``file``.

    Return False if the application's ``PRAGMA query_only``, the permissions or a read-only mount
    prevent them, because that applies to any connection. Call this in the connection's thread.
    """
    if ask(connection, "query_only") != 0:
        return False
    directory = os.path.dirname(file)
    return os.access(directory, os.W_OK | os.X_OK) and all(
        os.access(path, os.W_OK)
        for path in (f"{file}{side}" for side in _FILES)
        if os.path.exists(path)
    )
