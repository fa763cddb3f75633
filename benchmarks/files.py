"""Database files: filled once, copied for each run."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection

from .engines import synchronous


def create(template: Path, fill: Callable[[Connection], None]) -> None:
    """Fill a file that is in WAL mode already, as an application's is when it starts again."""
    engine = synchronous(template)
    try:
        with engine.begin() as connection:
            fill(connection)
    finally:
        engine.dispose()  # the last connection moves the log into the file and removes it


def copy(template: Path, directory: Path) -> Path:
    """A file of its own for one run, on disk before the clock starts."""
    database = Path(shutil.copyfile(template, directory / template.name))
    with database.open("rb+") as file:
        os.fsync(file.fileno())
    return database


def total(database: Path, column: str, table: str) -> int:
    """The sum over all rows, asked with plain ``sqlite3``: the books of a run.

    Only for files that nobody has open here: closing one drops SQLite's locks on it.
    """
    with closing(sqlite3.connect(database)) as connection:
        found: int = connection.execute(f"SELECT sum({column}) FROM {table}").fetchone()[0]
    return found
