"""The state of a database as seen from outside: responses of processes, locks, the log file."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from ..files.locks_held import HeldLocks, locks_held
from ..files.log_file import LogSize, measure
from ..system.proc_locks import tells_locks
from .asking import SECONDS, Answer, ask_all

VERSION = 1


@dataclass(frozen=True, slots=True)
class Overview:
    """The activity of all processes on ``database``, whose file has ``size`` bytes.

    ``log`` is None if there is no write-ahead log. If the system does not list locks, ``locks`` is
    empty and ``locks_known`` is False.
    """

    database: str
    at: datetime
    size: int
    processes: tuple[Answer, ...]
    locks: tuple[HeldLocks, ...]
    log: LogSize | None
    locks_known: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; ``docs/status.md`` describes them."""
        log = self.log
        return {
            "version": VERSION,
            "database": self.database,
            "at": self.at.isoformat(timespec="milliseconds"),
            "size": self.size,
            "processes": [answer.as_dict() for answer in self.processes],
            "locks": [asdict(one) for one in self.locks],
            "locks_known": self.locks_known,
            "log": log and {"size": log.size, "frames": log.frames, "frame_size": log.frame_size},
        }


def look_at(database: str, timeout: float = SECONDS) -> Overview:
    """Return the state of ``database``, a real path, within approximately ``timeout`` seconds.

    Raise ``OSError`` if there is no such file. The file is neither opened nor changed.
    """
    size = os.stat(database).st_size
    answers = ask_all(database, timeout)
    log = f"{database}-wal"
    return Overview(
        database,
        datetime.now(timezone.utc),
        size,
        tuple(answers),
        tuple(locks_held(database)),
        measure(log) if os.path.exists(log) else None,
        tells_locks(),
    )
