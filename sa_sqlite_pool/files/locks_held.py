"""The locks that are held on a database, by process: SQLite's own and this package's."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass

from ..system.proc_locks import program_of
from .neighbours import OF_PACKAGE, all_locks_on

_IN_ORDER = (
    *("turn", "line", "write", "checkpoint", "recover"),
    *("exclusive", "pending", "reserved", "read", "shared"),
)


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """The locks of one process.

    ``locks`` are this package's ``turn`` and ``line``, and SQLite's locks under their names in
    :mod:`~.neighbours`. ``uses_package`` is None if unknown: without a log, a process shows it only
    while it writes or waits to write.
    """

    pid: int
    process: str | None
    locks: tuple[str, ...]
    uses_package: bool | None


def locks_held(database: str) -> list[HeldLocks]:
    """Return the locks on ``database``; none if the system does not list locks.

    In WAL mode, the shared lock of the database is omitted: each connection always holds it.
    """
    always = {"present", "shared"} if os.path.exists(f"{database}-shm") else {"present"}
    unknown = False if os.path.exists(f"{database}-wal") else None
    held: defaultdict[int, set[str]] = defaultdict(set)
    for pid, name in all_locks_on(database):
        held[pid].add(name)
    return [
        HeldLocks(
            pid,
            program_of(pid),
            tuple(name for name in _IN_ORDER if name in names - always),
            True if names & OF_PACKAGE else unknown,
        )
        for pid, names in sorted(held.items())
        if names - always
    ]
