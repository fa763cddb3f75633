"""How often a log began anew, and how large it was, seen from outside.

The header of a ``-wal`` file has a salt that grows by one whenever the log begins anew
(https://www.sqlite.org/fileformat2.html#walformat). Opening that file is harmless; the database and
``-shm`` must never be opened beside SQLite: closing them drops its locks.
"""

from __future__ import annotations

import os
from pathlib import Path

_SALT = slice(16, 20)

# A salt that jumps further has been drawn anew: by the first connection to write after another one
# has truncated the log. That is one new beginning.
_MOST_AT_ONCE = 10_000


class LogWatch:
    """Look at the log now and then; what happens between two looks is counted, too."""

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
