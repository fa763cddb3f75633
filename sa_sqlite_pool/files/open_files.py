"""The database files of open connections, and whether these files are still in place.

A file that is deleted or replaced while connections are open lives on without its name: commits
still reach it, and its log, which is still found by the old name. A checkpoint opens connections by
that name. It would move the log of the old file into whatever file has the name now: "unlinking or
renaming a database file while in use" (https://www.sqlite.org/howtocorrupt.html). So it checks
first, as does the code that opens another connection or commits. ``stat()`` opens nothing, and so
drops none of SQLite's locks; nor does reading a log.
"""

from __future__ import annotations

import os
from typing import NamedTuple, final

from ..errors import DatabaseNotUsableError
from .descriptors import deleted_but_open, descriptor_of, is_open_for_writing
from .lasting_lock import LastingLocks
from .log_file import measure


class FileReplacedError(DatabaseNotUsableError):
    """The path of an open database now names another file, or none."""


class LogLostError(FileReplacedError):
    """Another log, or none, has the name of the log that connections of this process use."""


class _File(NamedTuple):
    path: str  # the real path
    device: int
    inode: int  # 0 if unknown

    def is_not(self, now: _File | None) -> bool:
        """Return whether its path now names another file, or none."""
        return now is None or (now.inode != 0 and now != self)


def _look_at(path: str) -> _File | None:
    """Return the file at ``path``, None if there is none.

    Its device and inode are 0, for unknown, if the process has dropped the right to enter a parent
    directory (its open files still work), or if the file server is unreachable for a moment.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _File(path, 0, 0)
    return _File(path, found.st_dev, found.st_ino)


class _Log(NamedTuple):
    file: _File  # a new log may get the inode number of the old one, which SQLite has removed,
    salts: tuple[int, ...]  # and a copy that is put back has the same salts


def _log_of(path: str) -> _Log | None:
    """Return the log beside the database ``path``; None if there is none, or if it is empty."""
    name = f"{path}-wal"
    file, salts = _look_at(name), measure(name).salts
    return _Log(file, salts) if file is not None and salts else None


def _has_open(file: _File) -> bool:
    """Return whether this process has ``file`` open; True if the system cannot tell."""
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
        self._old_logs: dict[str, _Log] = {}  # of replaced files, by the path of the database
        self._logs: dict[str, _File] = {}  # in use by connections, by the path of the database
        self._closing: set[object] = set()
        self._locks = LastingLocks()

    def add(self, connection: object, path: str) -> None:
        """Register the file ``path`` of a new ``connection``; this happens once in its lifetime."""
        if connection in self._files:
            return
        file = _look_at(path)
        if file is not None and file.inode:
            self._files[connection] = file

    def hold(self, path: str) -> None:
        """Show other programs that the database ``path`` is in use, even if SQLite's locks go.

        Call this for a new connection, after :meth:`add`.
        """
        self._locks.hold(path)

    def let_go(self, path: str) -> bool:
        """Undo :meth:`hold`, so that one connection can have ``path`` for itself if it is alone."""
        return self._locks.release(path)

    def closes(self, connection: object) -> None:
        """Prepare for the close of a ``connection``. Record its log if its file was replaced.

        SQLite does not move the log of such a file, but leaves it where another file would use it.
        """
        file = self._files.get(connection)
        if file is None:
            return
        self._closing.add(connection)
        self._locks.release(file.path, lambda: self._is_in_use(file.path))
        if file.is_not(_look_at(file.path)):
            self._note_log(file.path)

    def _is_in_use(self, path: str) -> bool:
        """Return whether a connection to ``path`` is open that is not being closed."""
        files = list(self._files.items())
        return any(file.path == path and each not in self._closing for each, file in files)

    def note_log(self, path: str) -> None:
        """Note the log that the connections to ``path`` use now, unless theirs is lost.

        If it was deleted before this call, the name may already be that of another log. A log that
        this process does not have open is that of another process.
        """
        if self.has_lost_log(path):
            return
        log = _look_at(name := f"{path}-wal")
        if log is not None and log == self._logs.get(path):
            return
        if log is None or not is_open_for_writing(log.device, log.inode):
            found = deleted_but_open(name)
            log = None if found is None else _File(name, *found)
        if log is not None:
            self._logs[path] = log

    def has_lost_log(self, path: str) -> bool:
        """Return whether connections to ``path`` write to a log that is not beside it any more."""
        return self._lost_log(path) is not None

    def others_are_open(self, connection: object, path: str) -> bool:
        """Return whether this process has other connections to ``path`` than ``connection``."""
        files = list(self._files.items())
        return any(file.path == path and other is not connection for other, file in files)

    def discard(self, connection: object) -> None:
        """Forget a ``connection`` that was closed, and its log if it was the last to use it.

        Once nothing in this process has a log open, another file may get its inode number.
        Connections that this package does not know may still have it open.
        """
        file = self._files.pop(connection, None)
        self._closing.discard(connection)
        if file is None or self.others_are_open(connection, file.path):
            return
        self._locks.release(file.path, lambda: self._is_in_use(file.path))
        self._locks.close_unused()
        log = self._logs.get(file.path)
        if log is not None and not is_open_for_writing(log.device, log.inode):
            self._logs.pop(file.path, None)

    def is_open(self, path: str) -> bool:
        """Return whether a connection is open to the file that is at ``path`` now."""
        return _look_at(path) in self._files.values()

    def is_replaced(self, path: str) -> bool:
        """Return whether a connection was opened to another file ``path`` than there is now.

        If so, record its log, which SQLite leaves there, for :meth:`assert_may_open`.
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
        if what := self._lost_log(path):
            raise _log_lost(path, what, "No checkpoint or backup is made until they are closed")

    def assert_may_open(self, path: str) -> None:
        """Raise :class:`FileReplacedError` if a connection opened now would use an old file's log.

        SQLite finds the log, and the memory that its users share, by the name of the database. It
        removes a log beside an empty file, and applies a log to any other file.
        """
        if what := self._replaced(path):
            raise FileReplacedError(
                f"{path} was {what} while it was open, and sessions or connections of this "
                "process still use the old file. No new connection is opened, since SQLite would "
                "give it the log of the old file. Close them and try again, or restart as "
                f"follows. {_remedy(path)}"
            )
        if what := self._lost_log(path):
            raise _log_lost(
                path, what, "No new connection is opened until these are at rest: try again"
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
        """Raise :class:`FileReplacedError` if the file of ``connection`` is no longer in place.

        Without a log, SQLite itself refuses to write in that case, on stock connections, too
        ("attempt to write a readonly database").
        """
        file = self._files.get(connection)
        if file is not None and file.is_not(now := _look_at(file.path)):
            raise FileReplacedError(
                f"{file.path} was {_what(now)} while it was open. The transaction would be "
                "committed to the old file, where it would be lost, so it is rolled back. "
                f"{_remedy(file.path)}"
            )
        if file is not None and file.path in self._logs and (what := self._lost_log(file.path)):
            raise _log_lost(
                file.path,
                what,
                "The transaction would be lost, so it is rolled back: try again. The connections "
                "are being closed, and the database is reopened",
            )

    def _lost_log(self, path: str) -> str | None:
        """Return what became of the log that connections to ``path`` use; None if it is there.

        SQLite removes a log itself when the last connection of all is closed. So the log counts as
        lost only while a connection of this process has it open.
        """
        log = self._logs.get(path)
        if log is None or not log.is_not(now := _look_at(log.path)):
            return None
        return _what(now) if is_open_for_writing(log.device, log.inode) else None

    def _note_log(self, path: str) -> None:
        """Record the log at ``path`` as an old one, while a connection to the old file is open.

        A log that this process does not have open came with the new file, or was begun there by
        another process.
        """
        if (log := _log_of(path)) is not None and _has_open(log.file):
            self._old_logs[path] = log

    def _replaced(self, path: str) -> str | None:
        """Return what happened to the file of a connection to ``path``; None if it is in place."""
        now = _look_at(path)
        others = any(file.path == path and file.is_not(now) for file in list(self._files.values()))
        return _what(now) if others else None


def _what(now: _File | None) -> str:
    return "deleted" if now is None else "replaced by another file"


def _log_lost(path: str, what: str, then: str) -> LogLostError:
    return LogLostError(
        f"{path}-wal was {what} while connections of this process used it. {then}. Another program "
        "deleted it; or this process opened and closed the database as a plain file (for example "
        "to copy or send it: use backup()) or with another copy of SQLite (pysqlite3 or apsw "
        "beside sqlite3), which drops SQLite's locks, so the next program that closed the database "
        "took itself for the last user"
    )


def _remedy(path: str) -> str:
    return (
        "Stop all programs that use the database. If the file was moved, put it back; before "
        f"using another file, delete {path}-wal and {path}-shm if they belong to the old file. "
        "Then start again"
    )


open_files = OpenFiles()
