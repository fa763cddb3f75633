"""The state of a database, put together from outside: answers, locks, and the log's file."""

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
    """What all processes do with ``database``, whose file has ``size`` bytes.

    ``log`` is None if there is no write-ahead log. ``locks`` are none where the system does not
    tell, and ``locks_known`` is False then.
    """

    database: str
    at: datetime
    size: int
    processes: tuple[Answer, ...]
    locks: tuple[HeldLocks, ...]
    log: LogSize | None
    locks_known: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; ``docs/status.md`` describes it."""
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
    """Return what there is to see of ``database``, a real path, within ``timeout`` seconds or so.

    Raise ``OSError`` if there is no such file. It is not opened, and nothing of it is changed.
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
