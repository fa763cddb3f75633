"""Which other processes use a database, as far as the system tells.

SQLite locks single bytes: of the ``-shm`` file in WAL mode
(https://www.sqlite.org/walformat.html#wal_locks), else of the database (os.h in its source). A
process that uses this package has an ``flock()`` on the ``-wal`` file.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..process_locks import ProcessLock, identity, locks, other_processes

_LOG_WRITER = range(120, 121)
_LOG_READERS = range(124, 128)  # the reader at 123 uses the database alone, and is in nobody's way
_RESERVED_BYTE = 0x40000001  # who writes has it, where there is no log
_WRITER = range(_RESERVED_BYTE, _RESERVED_BYTE + 1)


def outside_readers(database: str) -> list[str]:
    """``process 4242 (sqlite3)`` for each other process that reads from the log."""
    return other_processes(_holders(locks(), f"{database}-shm", "READ", _LOG_READERS))


def outside_writers(database: str) -> list[str]:
    """Each other process that is writing at this moment and does not use this package."""
    held, log = list(locks()), identity(f"{database}-wal")
    known = {lock.pid for lock in held if (lock.family, lock.file) == ("FLOCK", log)}
    writing = {
        *_holders(held, f"{database}-shm", "WRITE", _LOG_WRITER),
        *_holders(held, database, "WRITE", _WRITER),
    }
    return other_processes(writing - known)


def _holders(held: Iterable[ProcessLock], path: str, kind: str, bytes_: range) -> list[int]:
    file = identity(path)
    return [
        lock.pid
        for lock in held
        if (lock.family, lock.kind, lock.file) == ("POSIX", kind, file) and lock.covers(bytes_)
    ]
