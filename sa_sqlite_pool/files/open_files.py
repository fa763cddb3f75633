"""The database files of open connections, and whether these files are still in their place.

A file that is deleted or replaced while connections are open goes on without its name: commits
reach it, and a log that is still found by the old name. A checkpoint opens connections by that
name. It would move the log of the old file into whatever file has the name now: "unlinking or
renaming a database file while in use" (https://www.sqlite.org/howtocorrupt.html). So it checks
first; so does what opens another connection, and what commits. ``stat()`` opens nothing, and so
drops none of SQLite's locks; nor does reading a log.
"""

from __future__ import annotations

import os
from typing import NamedTuple, final

from ..errors import DatabaseNotUsableError
from .descriptors import descriptor_of
from .log_file import measure


class FileReplacedError(DatabaseNotUsableError):
    """Another file, or none, has the name of a database that is open."""


class _File(NamedTuple):
    path: str  # the real one
    device: int
    inode: int  # 0 if the system does not say

    def is_not(self, now: _File | None) -> bool:
        """Return whether its path now has another file, or none."""
        return now is None or (now.inode != 0 and now != self)


def _look_at(path: str) -> _File | None:
    """Return the file at ``path``, None if there is none.

    A process that has given up the right to enter a directory above it goes on with what it has
    open, and a server that keeps the file may be away for a moment: then nothing is known.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _File(path, 0, 0)
    return _File(path, found.st_dev, found.st_ino)


class _Log(NamedTuple):
    file: _File  # a new log may get the number of the old one, which SQLite has removed,
    salts: tuple[int, ...]  # and a copy that is put back has its salts


def _log_of(path: str) -> _Log | None:
    """Return the log beside the database ``path``; None if there is none, or nothing in it."""
    name = f"{path}-wal"
    file, salts = _look_at(name), measure(name).salts
    return _Log(file, salts) if file is not None and salts else None


def _has_open(file: _File) -> bool:
    """Return whether this process has ``file`` open; True where the system does not tell."""
    try:
        return descriptor_of(file.device, file.inode) is not None
    except OSError:
        return True


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


@final
class OpenFiles:
    """The files of this process's connections. Any thread may use this object."""

    def __init__(self) -> None:
        self._files: dict[object, _File] = {}
        self._old_logs: dict[str, _Log] = {}  # by path of the database: that of a file that is gone

    def add(self, connection: object, path: str) -> None:
        """Note the file ``path`` of a ``connection`` just opened; once, for its whole life."""
        if connection in self._files:
            return
        file = _look_at(path)
        if file is not None and file.inode:
            self._files[connection] = file

    def closes(self, connection: object) -> None:
        """Note the log of a ``connection`` that is to be closed, if its file was replaced.

        SQLite does not move the log of such a file, and leaves it where another file would find it.
        """
        file = self._files.get(connection)
        if file is not None and file.is_not(_look_at(file.path)):
            self._note_log(file.path)

    def discard(self, connection: object) -> None:
        """Forget a ``connection`` that was closed."""
        self._files.pop(connection, None)

    def is_open(self, path: str) -> bool:
        """Return whether a connection was opened to the file that is at ``path`` now."""
        return _look_at(path) in self._files.values()

    def is_replaced(self, path: str) -> bool:
        """Return whether a connection was opened to another file ``path`` than there is now.

        Then note its log, for :meth:`assert_may_open`: SQLite leaves it there.
        """
        if self._replaced(path) is None:
            return False
        self._note_log(path)
        return True

    def assert_in_place(self, path: str) -> None:
        """Raise :class:`FileReplacedError` if a connection was opened to another file ``path``."""
        if what := self._replaced(path):
            raise FileReplacedError(
                f"{path} was {what} while it was open. Its connections still use the old file, "
                "and no checkpoint or backup is made, since that would mix the two files. "
                f"{_remedy(path)}"
            )

    def assert_may_open(self, path: str) -> None:
        """Raise :class:`FileReplacedError` if a connection opened now would use an old file's log.

        SQLite finds the log, and the memory that its users share, by the name of the database. It
        removes a log beside an empty file, and applies it to any other.
        """
        if what := self._replaced(path):
            raise FileReplacedError(
                f"{path} was {what} while it was open, and sessions or connections of this "
                "process still use the old file. No new connection is opened, since SQLite would "
                "give it the log of the old file. Close them and try again, or restart as "
                f"follows. {_remedy(path)}"
            )
        if (old := self._old_logs.get(path)) is None:
            return
        if _log_of(path) != old:
            self._old_logs.pop(path, None)
        elif _size(path):
            raise FileReplacedError(
                f"{path} was replaced by another file while it was open, and {path}-wal is the "
                "log of the old file, which SQLite would apply to the new one. Stop the other "
                f"programs that use the database, delete {path}-wal and {path}-shm, and try "
                "again; restore() puts a backup in place without these steps"
            )

    def assert_may_commit(self, connection: object) -> None:
        """Raise :class:`FileReplacedError` if the file of ``connection`` is not in its place.

        Without a log SQLite refuses to write then, and so do stock's connections ("attempt to write
        a readonly database").
        """
        file = self._files.get(connection)
        if file is not None and file.is_not(now := _look_at(file.path)):
            raise FileReplacedError(
                f"{file.path} was {_what(now)} while it was open. The transaction would be "
                "committed to the old file, where it would be lost, so it is rolled back. "
                f"{_remedy(file.path)}"
            )

    def _note_log(self, path: str) -> None:
        """Note the log at ``path`` as an old one, while a connection to the old file is open.

        A log that this process does not have open came with the new file, or another process has
        begun it there.
        """
        if (log := _log_of(path)) is not None and _has_open(log.file):
            self._old_logs[path] = log

    def _replaced(self, path: str) -> str | None:
        """Return what became of the file of a connection to ``path``; None if it is there."""
        now = _look_at(path)
        others = any(file.path == path and file.is_not(now) for file in list(self._files.values()))
        return _what(now) if others else None


def _what(now: _File | None) -> str:
    return "deleted" if now is None else "replaced by another file"


def _remedy(path: str) -> str:
    return (
        "Stop all programs that use the database. If the file was moved, put it back; before "
        f"using another file, delete {path}-wal and {path}-shm if they belong to the old file. "
        "Then start again"
    )


open_files = OpenFiles()
