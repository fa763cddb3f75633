"""The locks on a database now, by process: SQLite's own, and those of this package."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ..system.proc_locks import identity, locks, program_of
from .neighbours import locks_on

_OF_PACKAGE = (("turn", "-turn"), ("line", "-line"))
_IN_ORDER = (
    *("turn", "line", "write", "checkpoint", "recover"),
    *("exclusive", "pending", "reserved", "read", "shared"),
)


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """The locks of one process.

    ``locks`` are ``turn`` and ``line``, of this package, and SQLite's, as
    :func:`~.neighbours.locks_on` names them. ``uses_package`` is None if unknown: without a log, a
    process shows it only while it writes, or waits for that.
    """

    pid: int
    process: str | None
    locks: tuple[str, ...]
    uses_package: bool | None


def locks_held(database: str) -> list[HeldLocks]:
    """Return the locks on ``database``; none where the system does not tell.

    In WAL mode, the shared lock of the database is left out: each connection has it all the time.
    """
    log = identity(f"{database}-wal")  # on which each process that uses the package has a lock
    always = {"shared"} if os.path.exists(f"{database}-shm") else set()
    held: defaultdict[int, set[str]] = defaultdict(set)
    for pid, name in [*_of_package(database), *locks_on(database)]:
        held[pid] |= {name} - always
    known = {pid for pid, names in held.items() if names & {"turn", "line"}}
    known |= {
        lock.pid
        for lock in locks()
        if log is not None and (lock.family, lock.file) == ("FLOCK", log)
    }
    others = None if log is None else False
    return [
        HeldLocks(
            pid,
            program_of(pid),
            tuple(name for name in _IN_ORDER if name in names),
            True if pid in known else others,
        )
        for pid, names in sorted(held.items())
        if names
    ]


def _of_package(database: str) -> Iterator[tuple[int, str]]:
    files = {identity(f"{database}{suffix}"): name for name, suffix in _OF_PACKAGE}
    for lock in locks():
        name = files.get(lock.file)
        if lock.family == "FLOCK" and lock.pid > 0 and name is not None:
            yield lock.pid, name
