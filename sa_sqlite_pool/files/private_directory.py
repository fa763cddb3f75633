"""The temporary file that takes the place of a database in memory; see :mod:`~.connector`."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import final

_databases: set[str] = set()  # while their directories exist


def is_private(database: str | None) -> bool:
    """Return whether the file ``database`` takes the place of a database in memory."""
    return database in _databases


@final
class PrivateDirectory:
    """A temporary directory for a database in memory.

    It is removed by :meth:`remove`, together with this object, or at the latest when Python exits.
    """

    def __init__(self) -> None:
        directory = tempfile.mkdtemp(prefix="sa_sqlite_pool-")
        self.database = str(Path(directory) / "memory.db")
        _databases.add(self.database)
        self.remove = weakref.finalize(self, _remove, directory, os.getpid())


def _remove(directory: str, owner: int) -> None:
    _databases.discard(str(Path(directory) / "memory.db"))
    if os.getpid() == owner:  # not in a forked child that exits
        shutil.rmtree(directory, ignore_errors=True)
