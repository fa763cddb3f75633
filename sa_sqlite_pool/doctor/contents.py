"""The content of a database: its structure, and its foreign keys."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator

from ..backup.foreign_schemas import ALL_LINES, is_of_values
from ..sqlite.inspection import rows
from .findings import Finding, Severity, Subject, as_written, plural

_MOST_MESSAGES = 10

# The output of PRAGMA integrity_check if only an index is wrong (https://www.sqlite.org/pragma.html
# #pragma_integrity_check): the index can be rebuilt from its table.
_OF_INDEX = re.compile(r"(?:row \d+ missing from index|wrong # of entries in index) (.+)")


def tables_of(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that store rows themselves, in the order of the schema."""
    return [
        name
        for name, sql in rows(connection, "SELECT name, sql FROM sqlite_master WHERE type='table'")
        if not name.startswith("sqlite_") and not sql.upper().startswith("CREATE VIRTUAL")
    ]


def check_integrity(
    connection: sqlite3.Connection, subject: Subject, pragma: str
) -> Iterator[Finding]:
    """Find the errors that ``pragma``, ``integrity_check`` or ``quick_check``, reports."""
    messages = _messages(connection, pragma)
    if messages == ["ok"]:
        return
    indexes = [match[1] if (match := _OF_INDEX.fullmatch(line)) else None for line in messages]
    for name in sorted({index for index in indexes if index is not None}):
        yield Finding(
            "damaged-index",
            Severity.ERROR,
            f"the index {name} does not match its table, so queries return wrong rows",
            subject.sql(f"REINDEX {as_written(name)}"),
        )
    others = [line for line, index in zip(messages, indexes, strict=True) if index is None]
    if structure := [line for line in others if not is_of_values(line)]:
        yield damaged(subject, pragma, structure)
    if values := [line for line in others if is_of_values(line)]:
        yield Finding(
            "values",
            Severity.ERROR,
            f"{pragma} reports values that their table does not allow: {_listed(values)}",
            "correct these rows, or the schema; in this respect, the file itself is intact",
        )


def _messages(connection: sqlite3.Connection, pragma: str) -> list[str]:
    """Return the messages of the PRAGMA, also if it stops halfway with an error.

    Messages about values that a table does not allow leave room for others, and are not repeated.
    """
    found: list[str] = []
    others = 0
    try:
        for (line,) in connection.execute(f"PRAGMA {pragma}({ALL_LINES})"):
            if not is_of_values(line):
                found.append(line)
                others += 1
            elif line not in found and len(found) - others < _MOST_MESSAGES:
                found.append(line)
            if others == _MOST_MESSAGES:
                break
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        found.append(str(error))
    return found


def damaged(subject: Subject, what: str, messages: list[str]) -> Finding:
    """Return the finding for a file whose structure SQLite cannot interpret."""
    return Finding(
        "damaged",
        Severity.ERROR,
        f"the database is damaged; {what} reports: {_listed(messages)}",
        f"{subject.restore()}, or, where "
        f"there is no backup: {subject.sql('.recover')} | sqlite3 recovered.db",
    )


def _listed(messages: list[str]) -> str:
    return " / ".join(line.replace("\n", " ") for line in messages)


def check_foreign_keys(connection: sqlite3.Connection, subject: Subject) -> Iterator[Finding]:
    """Find rows whose parent row is missing, and keys that cannot refer to any parent row."""
    for table in tables_of(connection):
        keys = rows(
            connection, 'SELECT DISTINCT id, "table" FROM pragma_foreign_key_list(?)', [table]
        )
        if not keys:
            continue
        try:
            lost = rows(connection, "SELECT fkid FROM pragma_foreign_key_check(?)", [table])
        except sqlite3.OperationalError as error:
            if "mismatch" not in str(error):
                raise
            yield Finding(
                "foreign-key-mismatch",
                Severity.ERROR,
                f"a foreign key of {table} refers to columns that are not a key of the parent "
                f"table ({error}): with foreign_keys=ON every write to these tables fails",
                "create a UNIQUE index on these columns of the parent table",
            )
            continue
        parents = dict(keys)
        for number, count in sorted(Counter(key for (key,) in lost).items()):
            yield Finding(
                "foreign-keys",
                Severity.ERROR,
                f"{plural(count, 'row')} of {table} "
                f"{'refers' if count == 1 else 'refer'} to rows of {parents[number]} that are not "
                "there",
                f"{subject.sql(f'PRAGMA foreign_key_check({as_written(table)})')} lists them: "
                "insert their parents, or delete them",
            )
