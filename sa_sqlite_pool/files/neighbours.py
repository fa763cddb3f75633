"""Which other processes use a database, as far as the system tells.

SQLite locks single bytes: of the ``-shm`` file in WAL mode
(https://www.sqlite.org/walformat.html#wal_locks), else of the database (os.h in its source). A
process that uses this package has an ``flock()`` on the ``-wal`` file, which SQLite never locks.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import final

from ..system.forks import renew_after_fork
from ..system.proc_locks import ProcessLock, identity, locks, other_processes, processes
from ..turn.write_turn import OWN_CONNECTION

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PROCESSES = Path("/proc")

tells_users = (_PROCESSES / "self" / "fd").exists()
"""Whether the system tells who has a file open."""

_LOG_WRITER = range(120, 121)
_LOG_READERS = range(124, 128)  # the reader at 123 uses the database alone, and is in nobody's way
_RESERVED_BYTE = 0x40000001  # who writes has it, where there is no log
_WRITER = range(_RESERVED_BYTE, _RESERVED_BYTE + 1)


def outside_readers(database: str) -> list[str]:
    """``process 4242 (sqlite3)`` for each other process that reads from the log."""
    return other_processes(_holders(locks(), f"{database}-shm", "READ", _LOG_READERS))


def outside_writers(database: str) -> list[str]:
    """Each other process that is writing at this moment and does not use this package."""
    writing, known = _writers(database)
    return other_processes(writing - known)


def describe_writer(database: str) -> str | None:
    """``process 4242 (sqlite3) outside this package …``: what has SQLite's lock for writing.

    None where the system does not tell: another connection, of any process, may have it then.
    """
    writing, known = _writers(database)
    if found := other_processes(writing - known):
        return f"{', '.join(found)} outside this package (an sqlite3 shell, a stock engine, say)"
    if found := other_processes(writing):
        return ", ".join(found)
    return OWN_CONNECTION if writing else None


def _writers(database: str) -> tuple[set[int], set[int]]:
    """The processes that are writing, and those that use this package."""
    held, log = list(locks()), identity(f"{database}-wal")
    known = {lock.pid for lock in held if (lock.family, lock.file) == ("FLOCK", log)}
    writing = {
        *_holders(held, f"{database}-shm", "WRITE", _LOG_WRITER),
        *_holders(held, database, "WRITE", _WRITER),
    }
    return writing, known


def users(path: str, *, writing: bool = False) -> list[str]:
    """Each process that has the file open, this one included, or has a lock on it.

    ``writing``: opened to be written, or with a lock on it.
    """
    try:
        file = os.stat(path)
    except OSError:
        return []
    openers = (
        int(descriptor.parts[-3])
        for descriptor in _descriptors(file)
        if not writing or _is_for_writing(descriptor)
    )
    name = identity(path)
    lockers = (lock.pid for lock in locks() if lock.file == name)
    return processes({*openers, *lockers})


def _descriptors(file: os.stat_result) -> Iterator[Path]:
    """``/proc/4242/fd/7``, as far as this user may see them."""
    for descriptor in _PROCESSES.glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if os.path.samestat(os.stat(descriptor), file):
                yield descriptor


def _is_for_writing(descriptor: Path) -> bool:
    try:
        info = (descriptor.parent.parent / "fdinfo" / descriptor.name).read_text()
    except OSError:
        return False
    flags = re.search(r"^flags:\s*([0-7]+)", info, flags=re.MULTILINE)
    return flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _holders(held: Iterable[ProcessLock], path: str, kind: str, bytes_: range) -> list[int]:
    file = identity(path)
    return [
        lock.pid
        for lock in held
        if (lock.family, lock.kind, lock.file) == ("POSIX", kind, file) and lock.covers(bytes_)
    ]


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
            # What else may be there by now is not to be waited for, as a FIFO would be.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
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
