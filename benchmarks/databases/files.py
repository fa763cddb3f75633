"""Database files: filled once, copied for each run."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from ..ways.engines import synchronous


def create(template: Path, fill: Callable[[Connection], None]) -> None:
    """Fill a file that is already in WAL mode, like that of an application that restarts."""
    engine = synchronous(template)
    try:
        with engine.begin() as connection:
            fill(connection)
    finally:
        engine.dispose()  # the last connection moves the log into the file and removes it


def copy(template: Path, directory: Path) -> Path:
    """Return a separate file for one run, which is on disk before the clock starts."""
    database = Path(shutil.copyfile(template, directory / template.name))
    with database.open("rb+") as file:
        os.fsync(file.fileno())
    return database


def leave_wal(database: Path) -> None:
    """Switch back to SQLite's default journal mode."""
    ask(database, "PRAGMA journal_mode = DELETE")


def total(database: Path, column: str, table: str) -> int:
    """Return the sum over all rows: the books of a run."""
    found: int = ask(database, f"SELECT sum({column}) FROM {table}")
    return found


def ask(database: Path, sql: str) -> Any:
    """Return the single value of a single row, queried with plain ``sqlite3``.

    Only for files that are not open in this process: closing one drops SQLite's locks on it.
    """
    with closing(sqlite3.connect(database)) as connection:
        [(value,)] = connection.execute(sql)
        return value
