"""The database files of open connections, and whether these files are still in their place.

A file that is deleted or replaced while connections are open goes on without its name: commits
reach it, and a log that is still found by the old name. A checkpoint opens connections by that
name. It would move the log of the old file into whatever file has the name now: "unlinking or
renaming a database file while in use" (https://www.sqlite.org/howtocorrupt.html). So it checks
first. ``stat()`` opens nothing, and so drops none of SQLite's locks.
"""

from __future__ import annotations

import os
from typing import NamedTuple, final

from ..errors import DatabaseNotUsableError


class FileReplacedError(DatabaseNotUsableError):
    """Another file, or none, has the name of a database that is open."""


class _File(NamedTuple):
    path: str  # the real one
    device: int
    inode: int


def _look_at(path: str) -> _File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _File(path, found.st_dev, found.st_ino)


@final
class OpenFiles:
    """The files of this process's connections. Any thread may use this object."""

    def __init__(self) -> None:
        self._files: dict[object, _File] = {}

    def add(self, connection: object, path: str) -> None:
        """Note the file ``path`` of a ``connection`` just opened; once, for its whole life."""
        if connection not in self._files and (file := _look_at(path)) is not None:
            self._files[connection] = file

    def discard(self, connection: object) -> None:
        """Forget a ``connection`` that was closed."""
        self._files.pop(connection, None)

    def is_open(self, path: str) -> bool:
        """Return whether a connection was opened to the file that is at ``path`` now."""
        return _look_at(path) in self._files.values()

    def assert_in_place(self, path: str) -> None:
        """Raise :class:`FileReplacedError` if a connection was opened to another file ``path``."""
        now = _look_at(path)
        for file in list(self._files.values()):
            if file.path == path and file != now:
                what = "deleted" if now is None else "replaced by another file"
                raise FileReplacedError(
                    f"{path} was {what} while it was open: commits go to the old file and its log, "
                    "and no checkpoint is made, which would move them into another; end all "
                    "programs that use the database, put the right file there, without the -wal "
                    "and -shm of another, and start again"
                )


open_files = OpenFiles()
