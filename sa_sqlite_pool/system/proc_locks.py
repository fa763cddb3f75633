"""The locks that processes hold, as far as the system reveals them.

Linux lists all locks, with the processes that hold them, in ``/proc/locks``. Reading it opens no
locked file. On other systems, and for processes in other containers, nothing is known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LOCKS = Path("/proc/locks")
_END_OF_FILE = 2**63


class ProcessLock(NamedTuple):
    """A lock: ``family`` is FLOCK or POSIX, ``kind`` READ or WRITE; ``last`` is inclusive."""

    family: str
    kind: str
    pid: int
    file: str
    first: int
    last: int

    def covers(self, bytes_: range) -> bool:
        return self.first < bytes_.stop and self.last >= bytes_.start


def identity(path: str) -> str | None:
    """Return how that list identifies a file; None if the file does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def tells_locks() -> bool:
    """Return whether the system lists locks: Linux, where ``/proc`` may be read."""
    return os.access(_LOCKS, os.R_OK)


def locks() -> Iterator[ProcessLock]:
    """Yield all locks that are held at this moment, without those that are waited for."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # 1: POSIX  ADVISORY  READ 4242 fd:00:1311 124 124; a request that waits has "->" in front
        with contextlib.suppress(ValueError):
            _, family, _, kind, pid, file, first, last = line.split()
            end = _END_OF_FILE if last == "EOF" else int(last)
            yield ProcessLock(family, kind, int(pid), file, int(first), end)


def other_processes(pids: Iterable[int]) -> list[str]:
    """Return ``process 4242 (sqlite3)`` for each process except this one."""
    return processes(set(pids) - {os.getpid()})


def processes(pids: Iterable[int]) -> list[str]:
    """Return ``process 4242 (sqlite3)`` for each; the system's own locks belong to no process."""
    return [_name(pid) for pid in sorted(set(pids)) if pid > 0]


def _name(pid: int) -> str:
    if pid == os.getpid():
        return "this process"
    name = program_of(pid)
    return f"process {pid}" if name is None else f"process {pid} ({name})"


def program_of(pid: int) -> str | None:
    """Return the name of the program that a process runs; None if it is unknown."""
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes()
    except OSError:
        return None
    # Any bytes: the kernel truncates a name to 15 of them, even within a character.
    return name.decode(errors="replace").strip()
