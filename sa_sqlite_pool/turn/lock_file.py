"""Locks between processes, which the system takes back when a process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol, final

from ..system.forks import renew_after_fork, rest
from ..system.regular_files import FLAGS, open_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class LockFile(Protocol):
    """The lock on one file. Each object is a holder of its own, also within a process.

    all but :meth:`acquire` return at once. They raise ``OSError`` where there are no locks, and
    ``DatabaseNotUsableError`` where something else is in the file's place.
    """

    def acquire_nowait(self) -> bool:
        """Whether the lock was free, and is this object's now."""

    def acquire(self) -> None:
        """Take the lock, waiting for it in this thread, which nothing can stop."""

    def release(self) -> None:
        """Let go of the lock."""

    @property
    def replaced(self) -> bool:
        """Whether the file is gone, and others would lock another one."""


def lock_file(path: str, like: str) -> LockFile:
    """The lock on ``path``, a file that is made with the owner and permissions of ``like``.

    It is empty and stays: whoever removed it could not know who is about to lock it.
    """
    return FlockFile(path, like) if fcntl is not None else PortableLockFile(path)


@final
class FlockFile:
    """``flock()``: a system call to take it, one to let go, and a fair line in the kernel.

    The lock belongs to what ``open()`` returned. A child process inherits that, so it closes its
    own; closing does not unlock as long as the parent has it open
    (https://man7.org/linux/man-pages/man2/flock.2.html).
    """

    def __init__(self, path: str, like: str) -> None:
        self._path = path
        self._like = like
        self._descriptor: int | None = None
        self._close: weakref.finalize[[int], FlockFile] | None = None
        renew_after_fork(self)

    def acquire_nowait(self) -> bool:
        try:
            fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self) -> None:
        fcntl.flock(self._open(), fcntl.LOCK_EX)

    def release(self) -> None:
        if self._descriptor is not None:  # else it could not be opened, and was never taken
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @property
    def replaced(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:  # it is gone, or its directory is
            return True

    def renew_in_child(self) -> None:
        if self._close is not None:
            self._close()
        self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            with rest():  # or a child of another thread would inherit what nobody closes there
                self._descriptor = _open(self._path, self._like)
                self._close = weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor


_REMEDY = ", or keep the database in a directory of its own; file_turn=False does without that file"


def _open(path: str, like: str) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError):
            return open_regular(path, _REMEDY)
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | FLAGS
            descriptor = os.open(path, flags, 0o600)
            _give_same_rights(descriptor, like)
            return descriptor


# Who may write a file has the bit 0o222 of its mode, and needs 0o444 of the other to lock it.
_WRITERS = 0o222


def _give_same_rights(descriptor: int, like: str) -> None:
    """Let everybody lock who may write the database, as SQLite does with the log, and nobody else.

    Who may only read the database could keep all from writing: ``flock()`` needs no more than a
    descriptor.
    """
    with contextlib.suppress(OSError):
        model = os.stat(like)
        writers = model.st_mode & _WRITERS
        os.fchmod(descriptor, writers | writers << 1)
        os.fchown(descriptor, model.st_uid, model.st_gid)


@final
class PortableLockFile:
    """The same where there is no ``flock()``, such as on Windows, by the library ``filelock``.

    It waits by asking again.
    """

    def __init__(self, path: str) -> None:
        import filelock  # noqa: PLC0415 - installed where it is needed

        self._lock = filelock.FileLock(path, thread_local=False)
        self._timeout = filelock.Timeout

    def acquire_nowait(self) -> bool:
        try:
            self._lock.acquire(blocking=False)
        except self._timeout:
            return False
        return True

    def acquire(self) -> None:
        self._lock.acquire(poll_interval=0.005)

    def release(self) -> None:
        self._lock.release(force=True)

    @property
    def replaced(self) -> bool:
        return False
