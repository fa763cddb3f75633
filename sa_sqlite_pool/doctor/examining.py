"""An examination of a database, which changes nothing.

A database is opened with ``mode=ro``. A closed database in WAL mode has no log, however, and even
a reader would create the log and its index, and leave both behind: "if the last connection to a
database … does not have write access, the WAL file is not deleted"
(https://www.sqlite.org/wal.html#read_only_databases). Such a database is therefore opened as
``immutable``, in which case SQLite creates and locks nothing, and is examined again if it has
changed in the meantime:

    Examination                       | Another process
    there is no log: immutable        |
    PRAGMA integrity_check            | opens it: creates the log; COMMIT
    there is a log: not the same file |
    mode=ro                           |
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from ..errors import NotADatabaseError
from ..files.log_file import measure
from ..sqlite.driver_errors import is_busy, is_interrupted
from ..sqlite.inspection import ask, rows
from .contents import check_foreign_keys, check_integrity, damaged
from .findings import Figures, Finding, Report, Severity, Subject
from .header import Header, check_readable, read_header
from .indexes import check_indexes
from .leftovers import check_beside, check_beside_missing
from .log import check_index_of_log, check_journal_mode, check_log
from .places import check_owners, check_place, is_doubtful, owners_kept
from .processes import (
    Watch,
    check_foreign_writers,
    check_replaced,
    check_writers,
    excluded_by,
    held_locks,
    still_excluded_by,
)
from .space import check_space, figures_of

BUSY_SECONDS = 5.0
"""Seconds to wait for a process that prevents all others from reading."""

_TRIES = 3

# SQLite calls the progress handler after this many of its instructions: every few milliseconds.
_INSTRUCTIONS = 100_000

# Errors on a connection that lacks the application's functions, collations and extensions.
_OF_APPLICATION = re.compile(
    r"(no such|unknown) (collation sequence|function|module|tokenizer)", re.IGNORECASE
)

# Findings that prevent any reading of the content.
_UNREADABLE = frozenset({"exclusive-lock", "hot-journal", "foreign-log", "log-without-index"})

OnProgress = Callable[[], object]


def examine(
    path: str | os.PathLike[str], *, quick: bool = False, on_progress: OnProgress | None = None
) -> Report:
    """Examine the database ``path`` without changing anything.

    :param quick: run ``PRAGMA quick_check``, which does not compare indexes with their tables,
        instead of ``integrity_check``
    :param on_progress: called at intervals, in this thread; an exception ends the examination

    The whole file is read, so the disk determines how long this takes. Raise
    :class:`~sa_sqlite_pool.DatabaseNotUsableError` if the file does not exist or cannot be read,
    and :class:`~sa_sqlite_pool.NotADatabaseError` if it is no database or is encrypted.
    """
    given = os.fspath(path)
    subject = Subject(given, os.path.realpath(given))
    if (missing := _check_file(subject)) is not None:
        return missing
    if os.path.getsize(subject.file) == 0:
        return _report(subject, [*check_beside_missing(subject)] or [_empty(subject)])
    return _Examination(subject, read_header(subject.file), quick, on_progress).run()


def _check_file(subject: Subject) -> Report | None:
    """Return a report if there is no database, but there are files that belong to one."""
    if not os.path.lexists(subject.file):
        found = [*check_beside_missing(subject), *check_replaced(subject)]
        if found:
            return _report(subject, found)
    check_readable(subject.path)
    return None


def _empty(subject: Subject) -> Finding:
    return Finding(
        "empty",
        Severity.INFO,
        f"{subject.path} is an empty file, which to SQLite is a database without tables",
        f"nothing, if that is right; else: {subject.restore()}",
    )


def _report(subject: Subject, findings: list[Finding]) -> Report:
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Report(subject.path, sqlite3.sqlite_version, tuple(findings), held_locks(subject))


@dataclass
class _Content:
    """The findings in the content, or the reason why it could not be read."""

    findings: list[Finding] = field(default_factory=list)
    figures: Figures | None = None
    checked: str | None = None


class _Examination:
    """One examination of an existing file."""

    def __init__(
        self, subject: Subject, header: Header | None, quick: bool, on_progress: OnProgress | None
    ) -> None:
        self._subject = subject
        self._header = header
        self._pragma = "quick_check" if quick else "integrity_check"
        self._on_progress = on_progress
        self._failed: BaseException | None = None
        self._watch = Watch(subject)

    def run(self) -> Report:
        subject, log = self._subject, f"{self._subject.file}-wal"
        locks = held_locks(subject)
        before = [
            *check_beside(subject, self._header),
            *(self._kept_out() or check_index_of_log(subject, measure(log))),
            *check_owners(subject),
        ]
        content = _Content()
        if not _UNREADABLE & {finding.id for finding in before}:
            with owners_kept(subject):
                content = self._content()
        self._watch.look()
        self._watch.look_for_writers()
        size = measure(log)
        wal = self._is_wal(content)
        findings = [
            *before,
            *content.findings,
            *check_place(subject, wal=wal),
            *check_log(subject, size, self._watch.steady_readers),
            *check_replaced(subject),
            *(check_foreign_writers(self._watch) if wal else ()),
            *check_writers(self._watch),
        ]
        return replace(
            _report(subject, findings),
            locks=locks,
            log_bytes=size.used,
            figures=content.figures,
            checked=content.checked,
        )

    def _is_wal(self, content: _Content) -> bool:
        if content.figures is not None:
            return content.figures.journal_mode == "wal"
        return self._header is not None and self._header.wal

    def _kept_out(self) -> list[Finding]:
        """Find a process that holds the log exclusively, without an index, by ``locking_mode``."""
        if self._is_closed() and (found := still_excluded_by(self._subject, BUSY_SECONDS)):
            return [_excluded(", ".join(found))]
        return []

    # -- the content ----------------------------------------------------------------------------

    def _content(self) -> _Content:
        """Examine the content; examine it again if the file changed while no lock protected it."""
        content = _Content()
        for _ in range(_TRIES):
            closed = self._is_closed()
            before = self._state()
            content = self._content_at_once(closed)
            if not closed or (self._is_closed() and self._state() == before):
                break
        return content

    def _is_closed(self) -> bool:
        """Return whether the database is in WAL mode and no process has it open."""
        if self._header is None or not self._header.wal:
            return False
        log = f"{self._subject.file}-wal"
        return not os.path.exists(f"{self._subject.file}-shm") or not os.path.exists(log)

    def _state(self) -> tuple[int, ...]:
        found = os.stat(self._subject.file)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _content_at_once(self, closed: bool) -> _Content:
        content = _Content()
        way = "immutable=1" if closed else "mode=ro"
        uri = f"file:{quote(os.fsencode(self._subject.file))}?{way}"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
            ) as connection:
                connection.set_progress_handler(self._tick, _INSTRUCTIONS)
                connection.text_factory = _readable
                mode = "wal" if closed else str(ask(connection, "journal_mode")).lower()
                content.figures = figures_of(connection, journal_mode=mode)
                content.findings += self._in_content(connection, content)
        except sqlite3.DatabaseError as error:
            if self._failed is not None:
                raise self._failed from None
            if is_interrupted(error):  # Ctrl-C, on its way into the handler
                raise KeyboardInterrupt from None
            content.findings.append(self._unreadable(error))
        return content

    def _in_content(self, connection: sqlite3.Connection, content: _Content) -> Iterator[Finding]:
        assert content.figures is not None
        subject, figures = self._subject, content.figures
        rows(connection, "SELECT 1 FROM sqlite_master LIMIT 1")
        found = list(self._as_far_as_known(check_integrity(connection, subject, self._pragma)))
        if not any(finding.id == "own-functions" for finding in found):
            content.checked = self._pragma
        yield from found
        if not is_doubtful(subject):  # if it is, the other modes are the better choice
            yield from check_journal_mode(subject, figures.journal_mode)
        yield from check_space(connection, subject, figures)
        if not any(finding.severity is Severity.ERROR for finding in found):  # or reported twice
            if not found:
                yield from self._as_far_as_known(check_foreign_keys(connection, subject))
            yield from check_indexes(connection, subject)

    def _as_far_as_known(self, check: Iterator[Finding]) -> Iterator[Finding]:
        """Yield the findings; add one if the check needs what only the application registers."""
        try:
            yield from check
        except sqlite3.OperationalError as error:
            if not _OF_APPLICATION.search(str(error)):
                raise
            yield Finding(
                "own-functions",
                Severity.WARNING,
                "the database needs functions, collations or modules that only its application "
                f"registers ({error}); its structure and foreign keys were not examined as a whole",
                f"on a connection of the application: PRAGMA {self._pragma}, and PRAGMA "
                "foreign_key_check",
            )

    def _tick(self) -> int:
        """Look at the other processes; return whether SQLite has to stop."""
        try:
            self._watch.look()
            if self._on_progress is not None:
                self._on_progress()
        except BaseException as error:  # sqlite3 would swallow it
            self._failed = error
            return 1
        return 0

    def _unreadable(self, error: sqlite3.DatabaseError) -> Finding:
        subject = self._subject
        if is_busy(error):
            return _excluded(", ".join(excluded_by(subject)) or "another process")
        if isinstance(error, sqlite3.OperationalError):
            return Finding(
                "not-examined",
                Severity.ERROR,
                f"SQLite cannot read the content: {error}",
                f"run this as the owner of the database: sudo {subject.command('doctor')}",
            )
        if "malformed database schema" in str(error):
            return Finding(
                "malformed-schema",
                Severity.ERROR,
                f"the SQLite installed here ({sqlite3.sqlite_version}) cannot read the schema "
                f"({error}): a newer SQLite has made it, or it is damaged",
                f"examine it with the newest SQLite; if that cannot read it: {subject.restore()}",
            )
        if "not a database" in str(error):
            raise NotADatabaseError(
                f"{subject.path} is not an SQLite database, or it is encrypted ({error})"
            ) from error
        return damaged(subject, "SQLite", [str(error)])


def _excluded(who: str) -> Finding:
    return Finding(
        "exclusive-lock",
        Severity.ERROR,
        f"{who} has held SQLite's exclusive lock for {BUSY_SECONDS:g} s, and nothing else can "
        "read; the content was not examined",
        f"end its transaction, or {who}; it may also have PRAGMA locking_mode = EXCLUSIVE",
    )


def _readable(text: bytes) -> str:
    """Return readable text: SQLite does not require names to be UTF-8."""
    return text.decode(errors="replace")
