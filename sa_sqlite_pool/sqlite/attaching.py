"""Attach database files to a reader read-only.

SQLite opens an attached file for reading and writing, even if main is open with ``mode=ro``
(``attachFunc()`` in its attach.c). So on a reader, every file is attached by a URI with
``mode=ro``, and SQLite itself refuses to write to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..files.location import Location
from . import statements
from .inspection import rows


class Wanted(NamedTuple):
    """The file that an ATTACH names, and its schema name as written in the text."""

    file: str
    name: str
    values: tuple[str, ...]  # the bound value of the name, if the name is a parameter


def ask_what(connection: Any, sql: str, parameters: Any) -> Wanted | None:
    """Return the file that the ATTACH ``sql`` requests; None if its text does not show it.

    Call this in the connection's thread: SQLite evaluates the expression that names the file.
    """
    parts = statements.parse_attach(sql)
    if parts is None:
        return None
    bound = parts.name[0] in "?:@$"
    question = f"SELECT {parts.file}" + (f", {parts.name}" if bound else "")
    file, *values = rows(connection, question, parameters)[0]
    return Wanted(str(file), "?" if bound else parts.name, tuple(values))


def attach_read_only(connection: Any, wanted: Wanted) -> None:
    """Attach a file read-only. Call this in the connection's thread.

    Raise SQLite's "unable to open database" if the file does not exist: a reader creates no file.
    """
    connection.execute(f"ATTACH ? AS {wanted.name}", (read_only(wanted.file), *wanted.values))


def attach_again_read_only(connection: Any) -> None:
    """Reattach all attached files read-only, before the connection is used as a reader."""
    for number, name, file in rows(connection, "PRAGMA database_list"):
        if number > 1 and file:
            connection.execute("DETACH ?", (name,))
            connection.execute("ATTACH ? AS ?", (read_only(file), name))


def read_only(file: str) -> str:
    """Return the URI to attach instead of ``file`` on a reader; a database in memory unchanged."""
    location = Location.parse(file, uri=True)
    if location.path is None:
        return file
    return location.with_parameter("mode", "ro").sqlite_uri
