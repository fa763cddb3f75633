"""A file that is written under a temporary name and renamed to its final name once complete.

Until then it is named ``<name>.unfinished``. A process that is killed leaves it behind; the next
process that writes the same file removes it. An ``flock()`` is held on a file being written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import final

from ..errors import DatabaseInUseError, DatabaseNotUsableError
from .forks import renew_after_fork
from .regular_files import FLAGS, open_regular

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".unfinished"

_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@final
class AtomicFile:
    """The file that will become ``final``. All methods block; any thread may :meth:`discard` it."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = str(final) + SUFFIX
        self._here = False  # exists under its temporary name, and belongs to this object
        self._lock_held: int | None = None
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Leave the file and its lock to the parent process."""
        self._here = False
        self._unlock()

    @contextlib.contextmanager
    def or_nothing(self) -> Iterator[None]:
        """Remove the file if the block raises."""
        try:
            yield
        except BaseException:
            self.discard()
            raise

    def create(self, *, like: str, source: str) -> None:
        """Create an empty file with the permissions, and under root the owner, of ``like``.

        Its owner can write it in any case. ``source`` is the file that will be copied into it.
        """
        if os.path.exists(self.path) and os.path.samefile(self.path, source):
            raise DatabaseNotUsableError(
                f"{source} has the name under which {self.final} is written until it is complete, "
                "and would be removed; rename it, or choose another path"
            )
        while not self._here:
            try:
                created = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
            except FileExistsError:
                self._remove_what_was_left()
            except OSError as error:
                if error.errno not in _NOT_ALLOWED:
                    raise
                raise DatabaseNotUsableError(
                    f"{self.path} cannot be created: {error.strerror}; make the directory "
                    f"{self.final.parent} writable by this user, or choose another path"
                ) from error
            else:
                self._own(created)
        model = os.stat(like)
        os.chmod(self.path, model.st_mode & 0o777 | stat.S_IRUSR | stat.S_IWUSR)
        # As SQLite does with its own files (robustFchown() in its os_unix.c).
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.chown(self.path, model.st_uid, model.st_gid)

    def _own(self, created: int) -> None:
        # Creator             | Another process, which finds the file
        # open                |
        #                     | lock, unlink, close
        # lock; not its file: retry
        try:
            self._lock(created)
            self._here = self._is(created)
        except OSError:  # locks do not work here, so no other process can hold one either
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            raise
        finally:
            if self._here and fcntl is not None:
                self._lock_held = created
            else:  # Windows cannot rename an open file
                os.close(created)

    def _remove_what_was_left(self) -> None:
        try:
            left = open_regular(self.path, ", or choose another path")
        except FileNotFoundError:
            return
        try:
            self._lock(left)
            if self._is(left):
                os.unlink(self.path)
        finally:
            os.close(left)

    def _lock(self, descriptor: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseInUseError(
                f"{self.final} is being written by another backup or restore; wait for it to finish"
            ) from error

    def _is(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def replace(self) -> None:
        """Rename to the final name atomically, replacing any older file, and sync the directory."""
        os.replace(self.path, self.final)
        self._here = False
        self._unlock()
        self._sync_directory()

    def link(self) -> None:
        """Take the final name; raise ``FileExistsError`` if a file of that name exists."""
        os.link(self.path, self.final)
        self.discard()
        self._sync_directory()

    def _sync_directory(self) -> None:
        if os.name == "nt":  # directories cannot be opened there
            return
        directory = os.open(self.final.parent, os.O_RDONLY | FLAGS)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove the file, unless it has its final name. Further calls do nothing."""
        if self._here:
            self._here = False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self._unlock()

    def _unlock(self) -> None:
        descriptor, self._lock_held = self._lock_held, None
        if descriptor is not None:
            os.close(descriptor)
