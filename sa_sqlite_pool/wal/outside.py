"""Which other processes read a database in WAL mode, as far as the system tells.

A reader has a shared lock on one of the bytes for readers in the ``-shm`` file
(https://www.sqlite.org/walformat.html#wal_locks). Linux lists all locks, with the process that has
them, in ``/proc/locks``. Looking there opens no file of the database.
"""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")
_FIRST_READER_BYTE = 124  # the reader at 123 uses the database alone, and is in nobody's way
_LAST_READER_BYTE = 127


def outside_readers(database: str) -> list[str]:
    """``process 4242 (sqlite3)`` for each other process that reads from the log, if known."""
    try:
        index = os.stat(f"{database}-shm")
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return []
    file = f"{os.major(index.st_dev):02x}:{os.minor(index.st_dev):02x}:{index.st_ino}"
    found = {pid for line in lines if (pid := _reader(line.split(), file)) is not None}
    return [_name(pid) for pid in sorted(found - {os.getpid()})]


def _reader(fields: list[str], file: str) -> int | None:
    # 1: POSIX  ADVISORY  READ 4242 fd:00:1311 124 124; one that waits for it has "->" in front
    try:
        _, family, _, kind, pid, where, first, last = fields
    except ValueError:
        return None
    if (family, kind, where) != ("POSIX", "READ", file):
        return None
    end = _LAST_READER_BYTE if last == "EOF" else int(last)
    reads = int(first) <= _LAST_READER_BYTE and end >= _FIRST_READER_BYTE
    return int(pid) if reads else None


def _name(pid: int) -> str:
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"
