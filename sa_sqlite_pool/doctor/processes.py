"""The processes that use a database during its examination, and the locks that they hold."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from typing import final

from ..files.neighbours import locks_on, outside_readers, outside_writers, users_of_deleted
from ..system.clock import time
from ..system.proc_locks import processes, program_of
from ..wal.reset_bug import FIXED_VERSIONS, has_reset_bug
from .findings import Finding, HeldLock, Severity, Subject

_WRITES = frozenset({"write", "reserved", "pending", "exclusive"})
_EXCLUDES = frozenset({"pending", "exclusive"})

# A process that had the lock at so many looks after the examination, with a pause before each, is
# not in a transaction like any other.
_LOOKS_FOR_WRITERS, _LOOK_SECONDS = 5, 0.1
pause = time.sleep

# An exclusive lock is one on all bytes of the others, too.
_IMPLIES = ("exclusive", "pending", "reserved", "shared")


@final
class Watch:
    """What is seen of other processes, at every :meth:`look`.

    ``steady_readers`` had a read transaction open at each of them, ``steady_writers`` (by pid) the
    lock to write; ``foreign_writers`` were writing at one, and do not use this package.
    """

    def __init__(self, subject: Subject) -> None:
        self._file = subject.file
        self.steady_readers = set(outside_readers(self._file))
        self.steady_writers = self._writers()
        self.foreign_writers: set[str] = set()
        self.look()

    def look(self) -> None:
        self.steady_readers &= set(outside_readers(self._file))
        self.steady_writers &= self._writers()
        self.foreign_writers |= set(outside_writers(self._file))

    def look_for_writers(self) -> None:
        """Look again while one of them may be in the middle of a transaction like any other."""
        for _ in range(_LOOKS_FOR_WRITERS):
            if not self.steady_writers:
                return
            pause(_LOOK_SECONDS)
            self.look()

    def _writers(self) -> set[int]:
        locks = locks_on(self._file)
        return {pid for pid, name in locks if name in _WRITES and pid != os.getpid()}


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


def check_writers(watch: Watch) -> Iterator[Finding]:
    """Find the process that keeps the others from writing."""
    for pid in sorted(watch.steady_writers):
        (name,) = processes([pid])
        yield Finding(
            "write-lock",
            Severity.INFO,
            f"{name} has had SQLite's write lock all the time, and all other writers wait for it",
            f"end that transaction; or, if it does not end by itself: kill {pid}",
        )


def excluded_by(subject: Subject) -> list[str]:
    """Return the processes that keep all others from reading."""
    return processes(
        pid for pid, name in locks_on(subject.file) if name in _EXCLUDES and pid != os.getpid()
    )


def still_excluded_by(subject: Subject, seconds: float) -> list[str]:
    """Return the same if they do so for ``seconds``; return as soon as nothing does."""
    give_up = time.monotonic() + seconds
    while (found := excluded_by(subject)) and time.monotonic() < give_up:
        pause(_LOOK_SECONDS)
    return found


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
