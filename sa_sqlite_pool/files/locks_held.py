"""The locks on a database now, by process: SQLite's own, and those of this package.

SQLite locks bytes of the ``-shm`` file where there is a log
(https://www.sqlite.org/walformat.html#wal_locks), else of the database (``os.h`` in its source).
Only the list of the system is read, and no file is opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ..system.proc_locks import ProcessLock, identity, locks, process_name

# Kind, and the byte of the -shm file whose lock says so.
_IN_INDEX = (
    ("write", "WRITE", range(120, 121)),
    ("checkpoint", "WRITE", range(121, 122)),
    ("recover", "WRITE", range(122, 123)),
    ("read", "READ", range(123, 128)),
    ("open", "READ", range(128, 129)),
)
# In WAL mode, each connection has the shared lock of the database as long as it is open.
_IN_DATABASE = (
    ("write", "WRITE", range(0x40000001, 0x40000002)),
    ("exclusive", "WRITE", range(0x40000002, 0x40000200)),
    ("read", "READ", range(0x40000002, 0x40000200)),
)
_OF_PACKAGE = (("turn", "-turn"), ("line", "-line"))


@dataclass(frozen=True, slots=True)
class HeldLocks:
    """The locks of one process.

    ``locks`` are ``turn`` and ``line``, of this package; ``write``, ``checkpoint``, ``recover``,
    ``exclusive`` and ``read``, of SQLite; and ``open``, which each connection has. ``uses_package``
    is None if unknown: without a log, a process shows it only while it waits or writes.
    """

    pid: int
    process: str | None
    locks: tuple[str, ...]
    uses_package: bool | None


def locks_held(database: str) -> list[HeldLocks]:
    """Return the locks on ``database``; none where the system does not tell."""
    held, has_log = list(locks()), identity(f"{database}-shm") is not None
    log = identity(f"{database}-wal")
    known = {lock.pid for lock in held if log and (lock.family, lock.file) == ("FLOCK", log)}
    found: defaultdict[int, list[str]] = defaultdict(list)
    for kind, pid in _found(database, held, has_log=has_log):
        if kind not in found[pid]:
            found[pid].append(kind)
    return [
        HeldLocks(
            pid,
            process_name(pid),
            tuple(kinds),
            True if pid in known or {"turn", "line"} & {*kinds} else False if log else None,
        )
        for pid, kinds in sorted(found.items())
    ]


def _found(database: str, held: list[ProcessLock], *, has_log: bool) -> Iterator[tuple[str, int]]:
    for kind, suffix in _OF_PACKAGE:
        file = identity(f"{database}{suffix}")
        yield from (
            (kind, lock.pid)
            for lock in held
            if file and (lock.family, lock.kind, lock.file) == ("FLOCK", "WRITE", file)
        )
    path, table = (f"{database}-shm", _IN_INDEX) if has_log else (database, _IN_DATABASE)
    file = identity(path)
    for kind, how, bytes_ in table:
        yield from (
            (kind, lock.pid)
            for lock in held
            if (lock.family, lock.kind, lock.file) == ("POSIX", how, file)
            and lock.pid > 0  # of a process of another container: 0
            and lock.covers(bytes_)
        )
