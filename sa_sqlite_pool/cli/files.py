"""The databases that sub-commands open: existing files, whose journal mode is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from sqlalchemy import URL

from ..database import SQLiteDatabase
from ..doctor.findings import Subject
from ..doctor.header import check_readable, read_header
from ..doctor.leftovers import check_beside
from ..errors import DatabaseNotUsableError
from ..settings import PragmaValue

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The database.")]


def pragmas_of(path: Path) -> dict[str, PragmaValue]:
    """Return pragmas that keep the journal mode of the database ``path``; raise if it is not one.

    Raise, too, if SQLite would apply the log of another database to it.
    """
    check_readable(str(path))
    if path.stat().st_size == 0:  # to SQLite, a database without tables
        return {"journal_mode": "DELETE"}
    subject = Subject(str(path), os.path.realpath(path))
    header = read_header(subject.file)
    for finding in check_beside(subject, header):
        if finding.id == "foreign-log":
            raise DatabaseNotUsableError(f"{finding.message}; {finding.mend}")
    return {} if header is None or header.wal else {"journal_mode": "DELETE"}


def url_of(path: Path, mode: str, driver: str = "sqlite+aiosqlite") -> URL:
    """Return the URL of a file, in a form with which SQLite never creates the file."""
    file = f"file:{quote(os.fsencode(os.path.realpath(path)))}"
    return URL.create(driver, database=file, query={"mode": mode, "uri": "true"})


def existing_database(path: Path) -> SQLiteDatabase:
    """Return the existing database at ``path``; its journal mode is kept."""
    return SQLiteDatabase(url_of(path, "rw"), pragmas=pragmas_of(path))
