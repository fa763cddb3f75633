"""The locations of the database and its migrations."""

from __future__ import annotations

from pathlib import Path

from sa_sqlite_pool import SQLiteDatabase

HERE = Path(__file__).parent
ALEMBIC = HERE / "alembic.ini"


def database() -> SQLiteDatabase:
    """Return the database beside this file."""
    return SQLiteDatabase(HERE / "example.db")
