"""Locks on a database that stay when SQLite's own locks on it are dropped.

SQLite shows other programs with locks that a database is in use: without one on the database, a
program that closes it moves and removes the log; without one on the index of the log, ``-shm``, a
program that opens it empties the index, even under a process that has it in its memory. The locks
are POSIX's: the system drops all of them as soon as this process closes any descriptor of that
file, after a copy of it or a download, for example. "Open file description locks" (Linux) last
until they are released or their own descriptor is closed. Others cannot tell the two apart.

So a process that has connections to a log holds such locks, too, on the same bytes. Nothing needs
to be done for them at a read or a write. SQLite's own last close in this process needs these bytes
for itself, so they are released just before.

    The first connection                    | The last connection
    open the files                          | release the locks
    lock them, if there is a log            | SQLite closes it, and moves the log if it is alone
                                            | close the files, if nothing else here has them open

The close of a descriptor would drop SQLite's locks, too, so it is kept for as long as any other
descriptor of its file is open in this process, even one that this package does not know.
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

# By suffix: the bytes that SQLite locks as long as a connection is open, in the database (its os.h)
# and in the index of the log (its "dead man switch", in os_unix.c).
_BYTES = {"": range(0x40000002, 0x40000002 + 510), "-shm": range(128, 129)}
_ALL = range(0)  # a length of 0 means up to the end

_FLOCK = struct.Struct("hhqqi4x")  # struct flock64: kind, whence, start, length, pid

# The 18th and 19th byte of a database are its file format's versions; 2 means WAL.
_VERSIONS, _WAL = 18, b"\x02\x02"


class _Opened(NamedTuple):
    descriptor: int
    device: int
    inode: int


@final
class LastingLocks:
    """The lasting locks of this process, by the names of the files. Any thread may use them."""

    def __init__(self) -> None:
        self._mutex = new_rlock()  # a connection may be garbage that is collected in between
        self._opened: dict[str, _Opened] = {}
        self._locked: set[str] = set()
        self._left: list[_Opened] = []  # of files that were replaced
        renew_after_fork(self)

    def hold(self, path: str) -> None:
        """Hold the locks on the database ``path``, if it is in WAL mode and the system can."""
        if fcntl is None or sys.platform != "linux":
            return
        with self._mutex, contextlib.suppress(OSError):
            if os.path.exists(f"{path}-wal") and _is_in_wal_mode(self._open(path)):
                for suffix, bytes_ in _BYTES.items():
                    file = self._open(path + suffix)
                    if path + suffix not in self._locked:
                        _set(file, fcntl.F_RDLCK, bytes_)
                        self._locked.add(path + suffix)

    def _open(self, name: str) -> _Opened:
        """Return the open file ``name``; if another file has got that name, open this one."""
        opened, found = self._opened.get(name), os.stat(name)
        if opened is not None and opened[1:] != (found.st_dev, found.st_ino):
            self._left.append(self._opened.pop(name))
            self._locked.discard(name)
            with contextlib.suppress(OSError):
                _set(opened, fcntl.F_UNLCK, _ALL)
            opened = None
        if opened is None:
            opened = self._opened[name] = _open(name)
        return opened

    def release(self, path: str, unless: Callable[[], bool] = lambda: False) -> bool:
        """Release the locks, except if ``unless()``; return whether they were held until now."""
        if fcntl is None or path not in self._locked:
            return False
        with self._mutex:
            if path not in self._locked or unless():
                return False
            for name in [path + suffix for suffix in _BYTES]:
                if name in self._locked:
                    self._locked.discard(name)
                    with contextlib.suppress(OSError):
                        _set(self._opened[name], fcntl.F_UNLCK, _ALL)
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


def _set(opened: _Opened, kind: int, bytes_: range) -> None:
    lock = _FLOCK.pack(kind, os.SEEK_SET, bytes_.start, len(bytes_), 0)
    fcntl.fcntl(opened.descriptor, fcntl.F_OFD_SETLK, lock)


def _close(opened: _Opened) -> bool:
    """Close a descriptor unless its file is in use; return whether it is closed."""
    if is_open_elsewhere(opened.descriptor, opened.device, opened.inode):
        return False
    with contextlib.suppress(OSError):
        os.close(opened.descriptor)
    return True
