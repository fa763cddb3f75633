"""Locks between processes, which the system releases when a process ends for whatever reason."""

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
    """The lock on one file. Each object is a separate holder, even within a process.

    All methods except :meth:`acquire` return at once. They raise ``OSError`` where locks do not
    work, and ``DatabaseNotUsableError`` if something other than a regular file is at the path.
    """

    def acquire_nowait(self) -> bool:
        """Acquire the lock if it is free; return whether it was."""

    def acquire(self) -> None:
        """Block this thread until it acquires the lock. The wait cannot be interrupted."""

    def release(self) -> None:
        """Release the lock."""

    @property
    def replaced(self) -> bool:
        """True if the file was removed, in which case others would lock a different one."""


def lock_file(path: str, like: str) -> LockFile:
    """Return the lock on ``path``, a file created for the users who may write ``like``.

    The file stays empty and is never removed: another process may be about to lock it.
    """
    return FlockFile(path, like) if fcntl is not None else PortableLockFile(path)


@final
class FlockFile:
    """``flock()``: one system call to acquire, one to release, and a fair queue in the kernel.

    The lock belongs to the open file description. A child process inherits it, so it closes its
    descriptor; this does not unlock the file as long as the parent's descriptor is open
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
            fcntl.flock(self._descriptor or self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self) -> None:
        fcntl.flock(self._open(), fcntl.LOCK_EX)

    def release(self) -> None:
        if self._descriptor is not None:  # else opening failed, and the lock was never acquired
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @property
    def replaced(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:  # the file or its directory is gone
            return True

    def renew_in_child(self) -> None:
        if self._close is not None:
            self._close()
        self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            with rest():  # or a child forked in between would inherit and never close a descriptor
                self._descriptor = _open(self._path, self._like)
                self._close = weakref.finalize(self, os.close, self._descriptor)
                self._close.atexit = False  # an atexit handler that runs later may still write
        return self._descriptor


_REMEDY = ", or keep the database in its own directory; file_turn=False works without that file"


def _open(path: str, like: str) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError):
            return open_regular(path, _REMEDY)
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | FLAGS
            descriptor = os.open(path, flags, 0o600)
            _give_same_rights(descriptor, like)
            return descriptor


# A user who may write the database has a bit of 0o222 in its mode, and needs that of 0o444 here.
_WRITERS = 0o222


def _give_same_rights(descriptor: int, like: str) -> None:
    """Let only the users who may write the database lock it, as SQLite does with the log.

    Otherwise a user who may only read the database could block all writers: ``flock()`` requires
    no more than a descriptor.
    """
    with contextlib.suppress(OSError):
        model = os.stat(like)
        writers = model.st_mode & _WRITERS
        os.fchmod(descriptor, writers | writers << 1)
        os.fchown(descriptor, model.st_uid, model.st_gid)


@final
class PortableLockFile:
    """The lock on systems without ``flock()``, such as Windows, with the library ``filelock``.

    It waits by polling, in no particular order.
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
