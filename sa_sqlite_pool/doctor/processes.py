"""The processes that use a database during its examination, and the locks that they hold."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from typing import final

from ..files.neighbours import locks_on, outside_readers, outside_writers, users_of_deleted
from ..system.proc_locks import processes, program_of
from ..wal.reset_bug import FIXED_VERSIONS, has_reset_bug
from .findings import Finding, HeldLock, Severity, Subject

_WRITES = frozenset({"write", "reserved", "pending", "exclusive"})
_EXCLUDES = frozenset({"pending", "exclusive"})

# An exclusive lock is one on all bytes of the others, too.
_IMPLIES = ("exclusive", "pending", "reserved", "shared")


@final
class Watch:
    """What is seen of other processes, at every :meth:`look`.

    ``steady_readers`` had a read transaction open at each of them; ``foreign_writers`` were
    writing at one, and do not use this package.
    """

    def __init__(self, subject: Subject) -> None:
        self._file = subject.file
        self.steady_readers = set(outside_readers(self._file))
        self.foreign_writers: set[str] = set()
        self.look()

    def look(self) -> None:
        self.steady_readers &= set(outside_readers(self._file))
        self.foreign_writers |= set(outside_writers(self._file))


def held_locks(subject: Subject) -> tuple[HeldLock, ...]:
    """Return the locks that other processes hold at this moment, each once."""
    held = {found for found in locks_on(subject.file) if found[0] != os.getpid()}
    return tuple(
        HeldLock(pid, program_of(pid), lock)
        for pid, lock in sorted(held)
        if not any((pid, stronger) in held for stronger in _stronger(lock))
    )


def _stronger(lock: str) -> tuple[str, ...]:
    return _IMPLIES[: _IMPLIES.index(lock)] if lock in _IMPLIES else ()


def check_locks(locks: tuple[HeldLock, ...]) -> Iterator[Finding]:
    """Find the process that keeps the others from writing."""
    for pid in sorted({lock.pid for lock in locks if lock.lock in _WRITES}):
        (name,) = processes([pid])
        yield Finding(
            "write-lock",
            Severity.INFO,
            f"{name} has SQLite's write lock, and all other writers wait for it",
            f"nothing, if it is gone in a moment; else end that transaction, or: kill {pid}",
        )


def excluded_by(subject: Subject) -> list[str]:
    """Return the processes that keep all others from reading."""
    return processes(
        pid for pid, name in locks_on(subject.file) if name in _EXCLUDES and pid != os.getpid()
    )


def check_foreign_writers(watch: Watch) -> Iterator[Finding]:
    """Find processes that do not know this package, where commits can be lost beside them."""
    if watch.foreign_writers and has_reset_bug(sqlite3.sqlite_version_info):
        yield Finding(
            "reset-bug",
            Severity.WARNING,
            f"{', '.join(sorted(watch.foreign_writers))} writes, and does not use this package; "
            f"SQLite {sqlite3.sqlite_version}, which is the one here, can lose commits when "
            "several programs write and checkpoint at the same instant "
            "(https://www.sqlite.org/wal.html#walresetbug)",
            f"use SQLite {FIXED_VERSIONS} in every program that opens the file, or let one alone "
            "write",
        )


def check_replaced(subject: Subject) -> Iterator[Finding]:
    """Find processes that go on with a file that has lost its name."""
    if found := users_of_deleted(subject.file):
        yield Finding(
            "replaced",
            Severity.ERROR,
            f"{subject.path} was deleted or replaced while {', '.join(found)} had it open: what "
            "is committed there goes to the old file, which is gone when it ends",
            f"end {', '.join(found)}, and start it again; the way to replace a database is "
            f"{subject.restore()}",
        )
