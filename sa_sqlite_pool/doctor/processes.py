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

# A process that held the lock at each of this many looks after the examination, with a pause before
# each, is not in an ordinary transaction.
_LOOKS_FOR_WRITERS, _LOOK_SECONDS = 5, 0.1
pause = time.sleep

# An exclusive lock also locks all bytes of the weaker locks.
_IMPLIES = ("exclusive", "pending", "reserved", "shared")


@final
class Watch:
    """The observed activity of other processes, updated by each :meth:`look`.

    ``steady_readers`` had a read transaction open at every look; ``steady_writers`` (pids) held the
    write lock at every look; ``foreign_writers``, without this package, were writing at some look.
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
        """Look again as long as a steady writer may be in the middle of an ordinary transaction."""
        for _ in range(_LOOKS_FOR_WRITERS):
            if not self.steady_writers:
                return
            pause(_LOOK_SECONDS)
            self.look()

    def _writers(self) -> set[int]:
        locks = locks_on(self._file)
        return {pid for pid, name in locks if name in _WRITES and pid != os.getpid()}


def held_locks(subject: Subject) -> tuple[HeldLock, ...]:
    """Return the locks that other processes hold now, each once."""
    held = {found for found in locks_on(subject.file) if found[0] != os.getpid()}
    return tuple(
        HeldLock(pid, program_of(pid), lock)
        for pid, lock in sorted(held)
        if not any((pid, stronger) in held for stronger in _stronger(lock))
    )


def _stronger(lock: str) -> tuple[str, ...]:
    return _IMPLIES[: _IMPLIES.index(lock)] if lock in _IMPLIES else ()


def check_writers(watch: Watch) -> Iterator[Finding]:
    """Find the process that prevents the others from writing."""
    for pid in sorted(watch.steady_writers):
        (name,) = processes([pid])
        yield Finding(
            "write-lock",
            Severity.INFO,
            f"{name} has held SQLite's write lock throughout the examination, and all other "
            "writers wait for it",
            f"end that transaction; or, if it does not end by itself: kill {pid}",
        )


def excluded_by(subject: Subject) -> list[str]:
    """Return the processes that prevent all others from reading."""
    return processes(
        pid for pid, name in locks_on(subject.file) if name in _EXCLUDES and pid != os.getpid()
    )


def still_excluded_by(subject: Subject, seconds: float) -> list[str]:
    """Return the processes that still do so after ``seconds``; return early if there are none."""
    give_up = time.monotonic() + seconds
    while (found := excluded_by(subject)) and time.monotonic() < give_up:
        pause(_LOOK_SECONDS)
    return found


def check_foreign_writers(watch: Watch) -> Iterator[Finding]:
    """Find writers without this package, if this SQLite version can lose commits beside them."""
    if watch.foreign_writers and has_reset_bug(sqlite3.sqlite_version_info):
        yield Finding(
            "reset-bug",
            Severity.WARNING,
            f"{', '.join(sorted(watch.foreign_writers))} writes, and does not use this package; "
            f"the SQLite installed here ({sqlite3.sqlite_version}) can lose commits when "
            "several programs write and checkpoint at the same instant "
            "(https://www.sqlite.org/wal.html#walresetbug)",
            f"use SQLite {FIXED_VERSIONS} in every program that opens the file, or let one alone "
            "write",
        )


def check_replaced(subject: Subject) -> Iterator[Finding]:
    """Find processes that still use a file that has been deleted or replaced."""
    if found := users_of_deleted(subject.file):
        yield Finding(
            "replaced",
            Severity.ERROR,
            f"{subject.path} was deleted or replaced while {', '.join(found)} had it open: what "
            "is committed there goes to the old file, which is gone when it ends",
            f"end {', '.join(found)}, and start it again; the way to replace a database is "
            f"{subject.restore()}",
        )
