"""How the processes that use this package on a log know each other.

Each has an ``flock()`` on the ``-wal`` file, which SQLite never locks.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import final

from ..system.forks import renew_after_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@final
class Presence:
    """Lets other processes know that this one uses the package on a log file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode: int | None = None
        self._close: weakref.finalize[[int], Presence] | None = None
        renew_after_fork(self)

    @property
    def shown(self) -> bool:
        return self._close is not None

    def show(self, inode: int) -> None:
        """The log that is in use has this inode. From any thread."""
        if fcntl is None or inode == self._inode:
            return
        self.hide()
        self._inode = inode
        with contextlib.suppress(OSError):
            # What else may be there by now is not to be waited for, as a FIFO would be.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._close = weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def hide(self) -> None:
        """The log is no longer used."""
        self._inode = None
        if self._close is not None:
            self._close()
            self._close = None

    def renew_in_child(self) -> None:
        """The lock is the parent's; leave it alone."""
        self.hide()
