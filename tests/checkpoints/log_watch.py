"""The number of restarts of a log, and its size, observed from outside.

The header of a ``-wal`` file contains a salt that is incremented whenever the log restarts
(https://www.sqlite.org/fileformat2.html#walformat). Opening that file is harmless; the database and
``-shm`` must never be opened beside SQLite: closing them drops its locks.
"""

from __future__ import annotations

import os
from pathlib import Path

_SALT = slice(16, 20)

# A salt that jumps further has been drawn at random: by the first connection that writes after
# another one has truncated the log. That counts as one restart.
_MOST_AT_ONCE = 10_000


class LogWatch:
    """Look at the log at intervals; restarts between two looks are counted, too."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-wal")
        self._salt: int | None = None
        self.resets = 0
        self.largest = 0

    def look(self) -> None:
        try:
            with self._path.open("rb", buffering=0) as log:
                header = log.read(32)
                self.largest = max(self.largest, os.fstat(log.fileno()).st_size)
        except FileNotFoundError:
            return
        if len(header) == 32:
            self._note(int.from_bytes(header[_SALT], "big"))

    def _note(self, salt: int) -> None:
        if self._salt is not None and salt != self._salt:
            steps = (salt - self._salt) % 2**32
            self.resets += steps if steps < _MOST_AT_ONCE else 1
        self._salt = salt
