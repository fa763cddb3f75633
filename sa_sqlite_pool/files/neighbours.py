"""The other processes that use a database, as far as the system reports them.

SQLite locks single bytes: of the ``-shm`` file in WAL mode
(https://www.sqlite.org/walformat.html#wal_locks), otherwise of the database (os.h in its source). A
process that uses this package holds an ``flock()`` on the ``-wal`` file, which SQLite never locks.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import final

from ..system.forks import renew_after_fork
from ..system.proc_locks import identity, locks, other_processes, processes
from ..turn.write_turn import OWN_CONNECTION

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PROCESSES = Path("/proc")

tells_users = (_PROCESSES / "self" / "fd").exists()
"""True if the system reports which processes have a file open."""

_RESERVED_BYTE = 0x40000001  # locked by a writer, if there is no log
_SHARED_BYTES = range(_RESERVED_BYTE + 1, _RESERVED_BYTE + 511)
_ANY = range(1)  # an flock() covers all bytes

# By the suffix of the locked file: the names of locks, with their families, kinds and bytes.
_LOCKS = {
    "": (
        ("shared", "POSIX", "READ", _SHARED_BYTES),
        ("reserved", "POSIX", "WRITE", range(_RESERVED_BYTE, _RESERVED_BYTE + 1)),
        ("pending", "POSIX", "WRITE", range(_RESERVED_BYTE - 1, _RESERVED_BYTE)),
        ("exclusive", "POSIX", "WRITE", _SHARED_BYTES),
    ),
    "-shm": (
        # At 123 while the whole log is in the database: while that reader is there, nothing more is
        # moved into it.
        ("read", "POSIX", "READ", range(123, 128)),
        ("write", "POSIX", "WRITE", range(120, 121)),
        ("checkpoint", "POSIX", "WRITE", range(121, 122)),
        ("recover", "POSIX", "WRITE", range(122, 123)),
    ),
    "-turn": (("turn", "FLOCK", "WRITE", _ANY),),
    "-line": (("line", "FLOCK", "WRITE", _ANY),),
    "-wal": (("present", "FLOCK", "READ", _ANY),),
}
OF_PACKAGE = frozenset({"turn", "line", "present"})
"""The locks of this package; each process that uses it holds ``present`` on the log."""

_WRITES = frozenset({"write", "reserved"})


def all_locks_on(database: str) -> Iterator[tuple[int, str]]:
    """Yield the process and the name of each lock on the database and the files beside it.

    All locks are from one moment. Yield nothing where the system does not list locks.
    """
    files = {identity(f"{database}{side}"): known for side, known in _LOCKS.items()}
    for lock in locks():
        for name, family, kind, bytes_ in files.get(lock.file, ()):
            if lock.pid > 0 and (lock.family, lock.kind) == (family, kind) and lock.covers(bytes_):
                yield lock.pid, name


def locks_on(database: str) -> Iterator[tuple[int, str]]:
    """Yield the process and the name of each of SQLite's own locks on the database and its log."""
    return ((pid, name) for pid, name in all_locks_on(database) if name not in OF_PACKAGE)


def outside_readers(database: str) -> list[str]:
    """Return ``process 4242 (sqlite3)`` for each other process that reads from the log."""
    return other_processes(pid for pid, name in all_locks_on(database) if name == "read")


def outside_writers(database: str) -> list[str]:
    """Return each other process that is writing now and does not use this package."""
    writing, known = _writers(database)
    return other_processes(writing - known)


def describe_writer(database: str) -> str | None:
    """Return the holder of SQLite's write lock: ``process 4242 (sqlite3) outside this package …``.

    Return None if the system does not list locks: another connection of any process may hold it.
    """
    writing, known = _writers(database)
    if found := other_processes(writing - known):
        return (
            f"{', '.join(found)} outside this package (for example, an sqlite3 shell or a stock "
            "engine)"
        )
    if found := other_processes(writing):
        return ", ".join(found)
    return OWN_CONNECTION if writing else None


def _writers(database: str) -> tuple[set[int], set[int]]:
    """Return the processes that are writing and the processes that use this package."""
    held = set(all_locks_on(database))
    writing = {pid for pid, name in held if name in _WRITES}
    return writing, {pid for pid, name in held if name == "present"}


def users(path: str, *, writing: bool = False) -> list[str]:
    """Return each process, including this one, that has the file open or holds a lock on it.

    With ``writing``, a process that has it open only for reading, without a lock, does not count.
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


def users_of_deleted(path: str) -> list[str]:
    """Return each process that still has a deleted file open whose path was ``path``."""
    found = set()
    for descriptor in _all_descriptors():
        with contextlib.suppress(OSError):
            # "If the pathname has been unlinked, the symbolic link will contain the string
            # '(deleted)' appended to the original pathname": proc_pid_fd(5)
            if os.readlink(descriptor) == f"{path} (deleted)":
                found.add(int(descriptor.parts[-3]))
    return processes(found)


def _descriptors(file: os.stat_result) -> Iterator[Path]:
    """Yield the descriptors of a file, as in ``/proc/4242/fd/7``, that this user may see."""
    for descriptor in _all_descriptors():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if os.path.samestat(os.stat(descriptor), file):
                yield descriptor


def _all_descriptors() -> Iterator[Path]:
    # This does not use glob(), which raises an error if a process ends meanwhile.
    for process in _names_in(_PROCESSES):
        if process.isdigit():
            descriptors = _PROCESSES / process / "fd"
            yield from (descriptors / name for name in _names_in(descriptors))


def _names_in(directory: Path) -> list[str]:
    """Return the names in a directory; none if it is gone or belongs to another user."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _is_for_writing(descriptor: Path) -> bool:
    try:
        info = (descriptor.parent.parent / "fdinfo" / descriptor.name).read_text()
    except OSError:
        return False
    flags = re.search(r"^flags:\s*([0-7]+)", info, flags=re.MULTILINE)
    return flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY


@final
class Presence:
    """The lock that shows other processes that this one uses the package on a log file.

    ``inode`` is the inode of the file, None while the presence is hidden.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.inode: int | None = None
        self._close: weakref.finalize[[int], Presence] | None = None
        renew_after_fork(self)

    def show(self, inode: int) -> None:
        """Show that the log with this inode is in use; any thread may call this."""
        if fcntl is None or inode == self.inode:
            return
        self.hide()
        self.inode = inode
        with contextlib.suppress(OSError):
            # By now the path may name something else, and opening a FIFO would wait.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._close = weakref.finalize(self, os.close, descriptor)
            self._close.atexit = False  # an atexit handler that runs later may use the database
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def hide(self) -> None:
        """Stop showing that the log is in use."""
        self.inode = None
        if self._close is not None:
            self._close()
            self._close = None

    def renew_in_child(self) -> None:
        """Close the inherited descriptor; the parent process keeps the lock."""
        self.hide()
