"""What an examination finds: frozen values."""

from __future__ import annotations

import enum
import math
import os
import shlex
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from ..sqlite.statements import quoted


class Severity(enum.Enum):
    """How much a finding matters."""

    ERROR = "error"
    """Data is lost or unreadable, or will be."""
    WARNING = "warning"
    """The database works, and will disappoint: it waits, grows, or depends on luck."""
    INFO = "info"
    """Worth knowing; nothing has to be done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a database.

    ``id`` is stable, for scripts; ``message`` is a sentence for people. ``mend`` is a command of
    the shell where one command is enough, else a sentence.
    """

    id: str
    severity: Severity
    message: str
    mend: str


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock of SQLite's that another process has.

    ``lock`` is ``"shared"``, ``"reserved"``, ``"pending"`` or ``"exclusive"`` on the database
    itself (https://www.sqlite.org/lockingv3.html), and ``"read"``, ``"write"``, ``"checkpoint"`` or
    ``"recover"`` on its log (https://www.sqlite.org/walformat.html#wal_locks). ``program`` is None
    if the system does not tell.
    """

    pid: int
    program: str | None
    lock: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The sizes of a database, in bytes and pages, as its content says."""

    journal_mode: str
    page_size: int
    pages: int
    free_pages: int
    cache_bytes: int | None
    """The cache that the file gives each connection; None if it leaves that to them."""

    @property
    def size(self) -> int:
        return self.page_size * self.pages


@dataclass(frozen=True, slots=True)
class Report:
    """The result of :func:`~sa_sqlite_pool.doctor.examine`.

    ``findings`` begin with the worst. ``figures`` and ``checked``, which is ``"integrity_check"``
    or ``"quick_check"``, are None if the content could not be read; a finding says why.
    ``log_bytes`` of the log are in use. ``locks`` are those of other processes (Linux only).
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
        """The severity of the worst finding; None if there is none."""
        return next(
            (one for one in Severity if any(f.severity is one for f in self.findings)), None
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """The database that is examined: ``path`` as the user has written it, ``file`` the real one."""

    path: str
    file: str

    @property
    def argument(self) -> str:
        """The path for a command line: one that begins with ``-`` would be taken for an option."""
        return f"./{self.path}" if self.path.startswith("-") else self.path

    def beside(self, side: str) -> str:
        """Return the path of a file beside the database: of the real one, if ``path`` is a link."""
        return f"{self.file if os.path.islink(self.path) else self.argument}{side}"

    def command(self, name: str, *options: str) -> str:
        """Return a command of this package about the database, for the shell."""
        return shlex.join(["sa-sqlite-pool", name, self.argument, *options])

    def restore(self) -> str:
        """Return the command that puts a backup in the place of the database."""
        return shlex.join(["sa-sqlite-pool", "restore", "BACKUP", self.argument])

    def sql(self, statement: str) -> str:
        """Return the command that executes ``statement`` by SQLite's own shell."""
        return shlex.join(["sqlite3", self.argument, statement])


def as_written(name: str) -> str:
    """Return an identifier for SQL, in quotes where it needs them."""
    plain = name.isidentifier() and name.isascii() and name == name.lower()
    return name if plain and not _is_reserved(name) else quoted(name)


def _is_reserved(word: str) -> bool:
    """Ask SQLite whether a word is one of its own, such as ``order``, in the place of a name."""
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
    """Return ``12 KiB``, or from 100 KiB on ``4.1 MiB``."""
    if size < _SMALL:
        return f"{math.ceil(size / 1024)} KiB"
    return f"{size / 1024 / 1024:,.1f} MiB"
