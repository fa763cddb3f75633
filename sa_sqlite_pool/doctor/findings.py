"""The results of an examination, as frozen values."""

from __future__ import annotations

import enum
import math
import os
import shlex
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from ..sqlite.tokens import quoted


class Severity(enum.Enum):
    """The severity of a finding."""

    ERROR = "error"
    """Data is lost or unreadable, or will be."""
    WARNING = "warning"
    """The database works, but will cause trouble: it waits, grows, or depends on luck."""
    INFO = "info"
    """Worth knowing; no action is required."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a database.

    ``id`` is stable, for scripts; ``message`` is a sentence for people. ``mend`` is a shell command
    if one command is enough, otherwise a sentence.
    """

    id: str
    severity: Severity
    message: str
    mend: str


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock of SQLite that another process holds.

    ``lock`` is ``"shared"``, ``"reserved"``, ``"pending"`` or ``"exclusive"`` on the database
    itself (https://www.sqlite.org/lockingv3.html), and ``"read"``, ``"write"``, ``"checkpoint"`` or
    ``"recover"`` on its log (https://www.sqlite.org/walformat.html#wal_locks). ``program`` is None
    if the system does not report it.
    """

    pid: int
    program: str | None
    lock: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The sizes of a database, in bytes and pages, as recorded in its content."""

    journal_mode: str
    page_size: int
    pages: int
    free_pages: int
    cache_bytes: int | None
    """The cache size that the file sets for each connection; None if it sets none."""

    @property
    def size(self) -> int:
        return self.page_size * self.pages


@dataclass(frozen=True, slots=True)
class Report:
    """The result of :func:`~sa_sqlite_pool.doctor.examine`.

    ``findings`` are sorted, the most severe first. ``figures`` and ``checked``, which is
    ``"integrity_check"`` or ``"quick_check"``, are None if the content could not be read; a finding
    says why. ``log_bytes`` of the log are in use. Other processes hold ``locks`` (Linux only).
    """

    path: str
    sqlite_version: str
    findings: tuple[Finding, ...]
    locks: tuple[HeldLock, ...] = ()
    log_bytes: int = 0
    figures: Figures | None = None
    checked: str | None = None

    @property
    def worst(self) -> Severity | None:
        """The highest severity of all findings; None if there are none."""
        return next(
            (one for one in Severity if any(f.severity is one for f in self.findings)), None
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """The examined database: ``path`` is the path as the user wrote it, ``file`` the real path."""

    path: str
    file: str

    @property
    def argument(self) -> str:
        """The path for a command line, where a leading ``-`` would be taken for an option."""
        return f"./{self.path}" if self.path.startswith("-") else self.path

    def beside(self, side: str) -> str:
        """Return the path of a file beside the database, or beside the target of a link."""
        return f"{self.file if os.path.islink(self.path) else self.argument}{side}"

    def command(self, name: str, *options: str) -> str:
        """Return a shell command that runs a sub-command of this package on the database."""
        return shlex.join(["sa-sqlite-pool", name, self.argument, *options])

    def restore(self) -> str:
        """Return the command that replaces the database with a backup."""
        return shlex.join(["sa-sqlite-pool", "restore", "BACKUP", self.argument])

    def sql(self, statement: str) -> str:
        """Return the command that executes ``statement`` in SQLite's own shell."""
        return shlex.join(["sqlite3", self.argument, statement])


def as_written(name: str) -> str:
    """Return an identifier for SQL, quoted if necessary."""
    plain = name.isidentifier() and name.isascii() and name == name.lower()
    return name if plain and not _is_reserved(name) else quoted(name)


def _is_reserved(word: str) -> bool:
    """Return whether SQLite rejects a word such as ``order`` as a name, because it is reserved."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(f"CREATE TABLE {word} ({word})")
            connection.execute(f'CREATE INDEX "an index" ON {word} ({word})')
        except sqlite3.OperationalError:
            return True
    return False


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


_SMALL = 100 * 1024  # bytes; as MiB with one decimal it would be 0.0 or 0.1


def size_text(size: int) -> str:
    """Return a text such as ``12 KiB``; from 100 KiB on, such as ``4.1 MiB``."""
    if size < _SMALL:
        return f"{math.ceil(size / 1024)} KiB"
    return f"{size / 1024 / 1024:,.1f} MiB"
