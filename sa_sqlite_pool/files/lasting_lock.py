"""A lock on a database that stays when SQLite's own locks on it are dropped.

SQLite shows other programs with a lock on the database that it is in use: a program that closes the
database moves and removes the log only if it finds no such lock. The lock is POSIX's, and the
system drops it as soon as this process closes any descriptor of the file: after a copy of it or a
download, for example. "Open file description locks" (Linux) do not have this fault: they last until
they are released or their own descriptor is closed, and other programs cannot tell the two apart.

So a process that has connections to a log holds such a lock, too, on the same bytes. Nothing needs
to be done for it at a read or a write. SQLite's own last close in this process needs these bytes
for itself, so the lock is released just before.

    The first connection                    | The last connection
    open the file                           | release the lock
    lock, if it is in WAL mode              | SQLite closes it, and moves the log if it is alone
                                            | close the file, if nothing else here has it open

The close of the descriptor would drop SQLite's locks, too, so it is kept for as long as any other
descriptor of the file is open in this process, even one that this package does not know.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple, final

from ..mutex import new_rlock
from ..system.forks import renew_after_fork
from .descriptors import is_open_elsewhere

try:
    import fcntl
except ImportError:  # Windows, where a close drops no locks of other handles
    fcntl = None  # type: ignore[assignment]

_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510  # SQLite's os.h
_FLOCK = struct.Struct("hhqqi4x")  # struct flock64: kind, whence, start, length, pid

# The 18th and 19th byte of a database are its file format's versions; 2 means WAL.
_VERSIONS, _WAL = 18, b"\x02\x02"


class _Opened(NamedTuple):
    descriptor: int
    device: int
    inode: int


@final
class LastingLocks:
    """The lasting locks of this process, by the path of the database. Any thread may use them."""

    def __init__(self) -> None:
        self._mutex = new_rlock()  # a connection may be garbage that is collected in between
        self._opened: dict[str, _Opened] = {}
        self._locked: set[str] = set()
        self._left: list[_Opened] = []  # of files that were replaced
        renew_after_fork(self)

    def hold(self, path: str) -> None:
        """Hold the lock on the database ``path``, if it is in WAL mode and the system can."""
        if fcntl is None or sys.platform != "linux":
            return
        with self._mutex, contextlib.suppress(OSError):
            found = os.stat(path)
            opened = self._opened.get(path)
            if opened is not None and opened[1:] != (found.st_dev, found.st_ino):
                self._left.append(self._opened.pop(path))
                self._locked.discard(path)
                opened = None
            if path in self._locked:
                return
            if opened is None:
                if not os.path.exists(f"{path}-wal"):
                    return
                opened = self._opened[path] = _open(path)
            if _is_in_wal_mode(opened):
                _set(opened, fcntl.F_RDLCK)
                self._locked.add(path)

    def release(self, path: str, unless: Callable[[], bool] = lambda: False) -> bool:
        """Release the lock, except if ``unless()``; return whether it was held and is not now."""
        if fcntl is None or path not in self._locked:
            return False
        with self._mutex:
            if path not in self._locked or unless():
                return False
            self._locked.discard(path)
            with contextlib.suppress(OSError):
                _set(self._opened[path], fcntl.F_UNLCK)
            return True

    def close_unused(self) -> None:
        """Close the files of released locks that nothing else in this process has open."""
        if not self._left and self._opened.keys() <= self._locked:
            return
        with self._mutex:
            for path in [path for path in self._opened if path not in self._locked]:
                if (opened := self._opened.pop(path, None)) and not _close(opened):
                    self._opened.setdefault(path, opened)
            for opened in self._left[:]:
                if opened in self._left and _close(opened):
                    self._left.remove(opened)

    def renew_in_child(self) -> None:
        """Close the descriptors, which are the parent's: they keep its locks while they are open.

        A child has inherited no POSIX lock that this could drop.
        """
        for opened in (*self._opened.values(), *self._left):
            with contextlib.suppress(OSError):
                os.close(opened.descriptor)
        self._mutex = new_rlock()
        self._opened, self._locked, self._left = {}, set(), []


def _open(path: str) -> _Opened:
    # If there is a FIFO instead, opening it must not wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    return _Opened(descriptor, found.st_dev, found.st_ino)


def _is_in_wal_mode(opened: _Opened) -> bool:
    return os.pread(opened.descriptor, len(_WAL), _VERSIONS) == _WAL


def _set(opened: _Opened, kind: int) -> None:
    lock = _FLOCK.pack(kind, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
    fcntl.fcntl(opened.descriptor, fcntl.F_OFD_SETLK, lock)


def _close(opened: _Opened) -> bool:
    """Close a descriptor unless its file is in use; return whether it is closed."""
    if is_open_elsewhere(opened.descriptor, opened.device, opened.inode):
        return False
    with contextlib.suppress(OSError):
        os.close(opened.descriptor)
    return True
