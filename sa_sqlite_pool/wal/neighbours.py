"""Which other processes use a database in WAL mode, as far as the system tells.

SQLite locks single bytes of the ``-shm`` file (https://www.sqlite.org/walformat.html#wal_locks).
Linux lists all locks, with the process that has them, in ``/proc/locks``. Looking there opens no
file of the database.

A process that uses this package has an ``flock()`` on the ``-wal`` file, which SQLite never locks,
so that the others know it. Elsewhere than on Linux, and for processes of another container, nothing
is known, and nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, final

from ..forks import renew_after_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCKS = Path("/proc/locks")
_WRITER = range(120, 121)
_READERS = range(124, 128)  # the reader at 123 uses the database alone, and is in nobody's way
_END_OF_FILE = 2**63


class _Lock(NamedTuple):
    family: str
    kind: str
    pid: int
    file: str
    first: int
    last: int

    def covers(self, bytes_: range) -> bool:
        return self.first < bytes_.stop and self.last >= bytes_.start


def outside_readers(database: str) -> list[str]:
    """``process 4242 (sqlite3)`` for each other process that reads from the log."""
    index = _identity(f"{database}-shm")
    return _names(
        lock.pid
        for lock in _locks()
        if (lock.family, lock.kind, lock.file) == ("POSIX", "READ", index) and lock.covers(_READERS)
    )


def outside_writers(database: str) -> list[str]:
    """Each other process that is writing at this moment and does not use this package."""
    index, log = _identity(f"{database}-shm"), _identity(f"{database}-wal")
    locks = list(_locks())
    known = {lock.pid for lock in locks if (lock.family, lock.file) == ("FLOCK", log)}
    return _names(
        lock.pid
        for lock in locks
        if (lock.family, lock.kind, lock.file) == ("POSIX", "WRITE", index)
        and lock.covers(_WRITER)
        and lock.pid not in known
    )


def _identity(path: str) -> str | None:
    """A file as ``/proc/locks`` names it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def _locks() -> Iterator[_Lock]:
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # 1: POSIX  ADVISORY  READ 4242 fd:00:1311 124 124; one that waits for it has "->" in front
        with contextlib.suppress(ValueError):
            _, family, _, kind, pid, file, first, last = line.split()
            end = _END_OF_FILE if last == "EOF" else int(last)
            yield _Lock(family, kind, int(pid), file, int(first), end)


def _names(pids: Iterable[int]) -> list[str]:
    others = {pid for pid in pids if pid > 0} - {os.getpid()}
    return [_name(pid) for pid in sorted(others)]


def _name(pid: int) -> str:
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


@final
class Presence:
    """Lets other processes know that this one uses the package on a log file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode: int | None = None
        self._close: weakref.finalize[[int], Presence] | None = None
        renew_after_fork(self)

    @property
    def shown(self) -> bool:
        return self._close is not None

    def show(self, inode: int) -> None:
        """The log that is in use has this inode. From any thread."""
        if fcntl is None or inode == self._inode:
            return
        self.hide()
        self._inode = inode
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._close = weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def hide(self) -> None:
        """The log is no longer used."""
        self._inode = None
        if self._close is not None:
            self._close()
            self._close = None

    def renew_in_child(self) -> None:
        """The lock is the parent's; leave it alone."""
        self.hide()
