"""Every acknowledged token is in the file, once and complete.

A token stands for a transaction. It is in one or more rows, each with the token as padding, and the
transaction has added one to a counter that it shares with others.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.cancellations.oracle import Fate

from .journal import Entry

COUNTERS = 16

# Their definitions fill pages, so reading the schema reads beyond the first page (window.py).
# No views: because of them, integrity_check would ignore unused pages.
_MORE_TABLES = "".join(f"CREATE TABLE t_{n} (n DEFAULT '{n:0500}');" for n in range(20))
_SCHEMA = f"""
    PRAGMA journal_mode = WAL;
    CREATE TABLE entries (
        token TEXT NOT NULL, part INTEGER NOT NULL, counter INTEGER NOT NULL, padding TEXT NOT NULL
    );
    CREATE INDEX entries_token ON entries (token);
    CREATE INDEX entries_counter ON entries (counter, part);
    CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL);
    WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < {COUNTERS - 1})
        INSERT INTO counters SELECT i, 0 FROM n;
    {_MORE_TABLES}
"""

INSERT = (
    "INSERT INTO entries (token, part, counter, padding) VALUES (:token, :part, :counter, :padding)"
)
ADD_ONE = "UPDATE counters SET value = value + 1 WHERE id = :counter"


class Row(NamedTuple):
    """A row of ``entries``."""

    token: str
    part: int
    counter: int
    padding: str


def create_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SCHEMA)


def rows_of(entry: Entry, repeats: int = 1) -> list[Row]:
    """Return the rows that a transaction inserts."""
    padding = entry.token * repeats
    return [Row(entry.token, part, entry.counter, padding) for part in range(entry.parts)]


def check_file(path: Path, entries: Iterable[Entry]) -> None:
    """Raise ``AssertionError`` with the first discrepancies."""
    wrong = list(discrepancies(path, entries))
    assert not wrong, f"{len(wrong)} wrong in the file:\n" + "\n".join(wrong[:10])


def discrepancies(path: Path, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the differences between the file and the journals, and damage of the file."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            yield from _damage(connection)
            found, wrong = _read(connection)
            yield from wrong
            yield from _wrong_tokens({entry.token: entry for entry in entries}, found)
            yield from _wrong_counters(connection, found)
        except sqlite3.DatabaseError as error:
            yield f"the file cannot be read: {error}"


class _Found(NamedTuple):
    """The content found for a token: its parts, and the counters that its rows name."""

    parts: list[int]
    counters: set[int]


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    answers = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    if answers != ["ok"]:
        yield from answers


def _read(connection: sqlite3.Connection) -> tuple[dict[str, _Found], list[str]]:
    found: dict[str, _Found] = defaultdict(lambda: _Found([], set()))
    wrong = []
    # Not through an index, which may lack rows of the table: integrity_check compares the two.
    for row in map(Row._make, connection.execute("SELECT * FROM entries NOT INDEXED")):
        found[row.token].parts.append(row.part)
        found[row.token].counters.add(row.counter)
        if row.padding.replace(row.token, ""):
            wrong.append(f"token {row.token}, part {row.part}: its padding is not its own")
    return found, wrong


def _wrong_tokens(entries: dict[str, Entry], found: dict[str, _Found]) -> Iterator[str]:
    for token in sorted(found.keys() - entries.keys()):
        yield f"token {token} is in the file and nobody wrote it"
    for token, entry in entries.items():
        parts, counters = found.get(token, ([], set()))
        whole = sorted(parts) == list(range(entry.parts))
        there = whole and counters == {entry.counter}
        allowed = {
            Fate.ACKNOWLEDGED: there,
            Fate.ROLLED_BACK: not parts,
            Fate.UNKNOWN: there or not parts,
        }
        if not allowed[entry.fate]:
            yield (
                f"token {token}: parts {sorted(parts)} of {entry.parts} at counters "
                f"{sorted(counters)}, not {entry.fate.value} at {entry.counter}"
            )


def _wrong_counters(connection: sqlite3.Connection, found: dict[str, _Found]) -> Iterator[str]:
    committed = Counter(counter for token in found.values() for counter in token.counters)
    values = dict(connection.execute("SELECT id, value FROM counters").fetchall())
    for counter in range(COUNTERS):
        if values.get(counter) != committed[counter]:
            yield (
                f"counter {counter} is {values.get(counter)} after {committed[counter]} "
                "transactions"
            )
