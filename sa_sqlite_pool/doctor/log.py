"""The journal mode of a database, and its log."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..files.log_file import LogSize
from ..settings import DEFAULT_WAL_SETTINGS
from .findings import Finding, Severity, Subject, size_text

LIMIT = DEFAULT_WAL_SETTINGS.hard_limit or 0
"""The size in bytes above which a log is large: this package lets none grow beyond twice that."""


def check_journal_mode(subject: Subject, mode: str) -> Iterator[Finding]:
    """Find a journal mode other than WAL."""
    if mode != "wal":
        yield Finding(
            "journal-mode",
            Severity.WARNING,
            f"journal_mode is {mode}: a commit waits for all readers to end, and readers wait for "
            "it",
            subject.sql("PRAGMA journal_mode = WAL"),
        )


def check_log(subject: Subject, log: LogSize, readers: set[str]) -> Iterator[Finding]:
    """Find a large log; ``readers`` had a transaction open throughout the examination."""
    path, truncate = subject.beside("-wal"), subject.command("checkpoint", "--mode", "truncate")
    if log.used > LIMIT and readers:
        who = ", ".join(sorted(readers))
        yield Finding(
            "log-pinned",
            Severity.WARNING,
            f"{size_text(log.used)} of {path} are in use, and it cannot shrink while {who} has a "
            "read transaction open",
            f"end that transaction, or {who}; then: {truncate}",
        )
    elif log.size > LIMIT:
        yield Finding(
            "log-large",
            Severity.WARNING if log.used > LIMIT else Severity.INFO,
            f"{path} has {size_text(log.size)}, of which {size_text(log.used)} are in use, and "
            "every read searches it first",
            truncate,
        )


def check_index_of_log(subject: Subject, log: LogSize) -> Iterator[Finding]:
    """Find a log without an index: reading the database would create the index."""
    if log.frames and not os.path.exists(f"{subject.file}-shm"):
        yield Finding(
            "log-without-index",
            Severity.WARNING,
            f"{subject.beside('-wal')} has {size_text(log.used)} that may not be in {subject.path} "
            f"yet, and {subject.beside('-shm')} is not there. The content was not examined, since "
            "reading it would create that file",
            subject.sql("SELECT count(*) FROM sqlite_master"),
        )
