"""The expected content: every row has a token, every token a fate; the file is compared to it."""

from __future__ import annotations

import asyncio
import enum
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

NUMBERS = 2_000

_SCHEMA = f"""
    CREATE TABLE entries (
        token INTEGER NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL,
        PRIMARY KEY (token, part)
    );
    CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL);
    INSERT INTO counters VALUES (1, 0);
    CREATE TABLE numbers (i INTEGER PRIMARY KEY);
    WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < {NUMBERS - 1})
        INSERT INTO numbers SELECT i FROM n;
"""


_of_this_task: ContextVar[list[int] | None] = ContextVar("_of_this_task", default=None)


def _task_name() -> str:
    task = asyncio.current_task()
    return "" if task is None else task.get_name()


def tokens_of_next_task() -> list[int]:
    """Return a list that collects the tokens of tasks created from now on."""
    tokens: list[int] = []
    _of_this_task.set(tokens)
    return tokens


class Fate(enum.Enum):
    """The required outcome for the rows of a token."""

    ACKNOWLEDGED = "all there"
    ROLLED_BACK = "none there"
    UNKNOWN = "all or none"


class Ledger:
    """The tokens, the number of parts (rows) of each, and their fates. Usable from any thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._parts: dict[int, int] = {}
        self._fates: dict[int, Fate] = {}
        self._counted: set[int] = set()
        self._writers: dict[int, str] = {}

    def token(self, parts: int = 1) -> int:
        """Return a new token, which may or may not be committed."""
        return self._book(parts, Fate.UNKNOWN)

    def doomed(self, parts: int = 1) -> int:
        """Return a token that will be rolled back, or never committed, in any case."""
        return self._book(parts, Fate.ROLLED_BACK)

    def counted(self) -> int:
        """Return a token whose transaction also adds one to the counter."""
        token = self.token()
        self._counted.add(token)
        return token

    def _book(self, parts: int, fate: Fate) -> int:
        token = next(self._numbers)
        self._parts[token], self._fates[token] = parts, fate
        self._writers[token] = _task_name()
        if (tokens := _of_this_task.get()) is not None:
            tokens.append(token)
        return token

    def acknowledge(self, token: int) -> None:
        """Record that the commit has returned."""
        assert self._fates[token] is Fate.UNKNOWN
        self._fates[token] = Fate.ACKNOWLEDGED

    def refuse(self, token: int) -> None:
        """Record that an error said that nothing was done, unless the fate is already known."""
        if self._fates[token] is Fate.UNKNOWN:
            self._fates[token] = Fate.ROLLED_BACK

    def rows(self, token: int) -> list[dict[str, int]]:
        """Return the rows of a token, as parameters."""
        parts = self._parts[token]
        return [{"token": token, "part": part, "parts": parts} for part in range(parts)]

    def acknowledged(self) -> set[int]:
        """Return the tokens whose commits have returned so far."""
        fates = self._fates.copy()  # in one step: other loops change them concurrently
        return {token for token, fate in fates.items() if fate is Fate.ACKNOWLEDGED}

    def number(self) -> int:
        """Return a number for a file, which has no rows."""
        return self._book(0, Fate.ROLLED_BACK)

    def torn_in(self, copy: Path, before: set[int]) -> list[str]:
        """Return the errors in a copy that was begun when ``before`` were acknowledged."""
        with closing(sqlite3.connect(copy)) as connection:
            found = _parts_found(connection)
        missing = [f"token {token} is missing" for token in before - found.keys()]
        return missing + [
            f"token {token} has {rows} of {self._parts[token]} rows"
            for token, rows in found.items()
            if rows != self._parts[token]
        ]

    def fates(self) -> Counter[Fate]:
        return Counter(self._fates.values())

    def discrepancies(self, path: Path) -> Iterator[str]:
        """Yield the differences between the file and the ledger."""
        with closing(sqlite3.connect(path)) as connection:
            found = _parts_found(connection)
            counter: int = connection.execute("SELECT value FROM counters").fetchone()[0]
        for token in found.keys() - self._parts.keys():
            yield f"token {token} is in the file and nobody wrote it"
        for token, fate in self._fates.items():
            if not self._holds(token, fate, found[token]):
                parts = self._parts[token]
                yield (
                    f"token {token} of {self._writers[token]!r}: {found[token]} of {parts} rows, "
                    f"not {fate.value}"
                )
        if counter != (additions := len(self._counted & found.keys())):
            yield f"the counter is {counter} after {additions} additions"

    def _holds(self, token: int, fate: Fate, found: int) -> bool:
        allowed = {
            Fate.ACKNOWLEDGED: {self._parts[token]},
            Fate.ROLLED_BACK: {0},
            Fate.UNKNOWN: {0, self._parts[token]},
        }
        return found in allowed[fate]


def _parts_found(connection: sqlite3.Connection) -> Counter[int]:
    query = "SELECT token, count(*) FROM entries WHERE part < parts GROUP BY token"
    return Counter(dict(connection.execute(query).fetchall()))


def create_tables(path: Path) -> None:
    """Create the tables with plain sqlite3, so no door is opened before its warm-up."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SCHEMA)


def integrity(path: Path) -> list[Any]:
    """Return the errors that SQLite finds in the file."""
    with closing(sqlite3.connect(path)) as connection:
        answers = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    return [] if answers == ["ok"] else answers


def check_file(ledger: Ledger, path: Path) -> None:
    """Raise unless the file contains exactly what it must, and is intact."""
    wrong = [*ledger.discrepancies(path), *integrity(path)]
    assert not wrong, f"{len(wrong)} wrong in the file:\n" + "\n".join(wrong[:10])
