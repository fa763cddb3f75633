"""The type of file at a path, and safe opening of the package's own files beside a database.

A user who may write to the directory can put a FIFO in their place, and opening it would wait for
a process to write to it: on the event loop, for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from ..errors import DatabaseNotUsableError

# Symbolic links are not followed: their target would be locked or truncated. Links to the database
# are resolved earlier, so no application needs a link here.
FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

# The errors of open() for a symbolic link, and for a socket or a missing device.
_NOT_REGULAR = frozenset({errno.ELOOP, errno.ENXIO})


def mode_of(path: Path, what: str = "path") -> int | None:
    """Return the mode of the file at ``path``, following links; None if it does not exist.

    Raises :class:`DatabaseNotUsableError` if this cannot be determined, for example because this
    user may not enter a directory above it. The message asks the user to correct ``what``.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise DatabaseNotUsableError(
            f"{path} cannot be reached: {error.strerror}; give this user access to the directory "
            f"{_closed_directory(path)}, or correct the {what}"
        ) from error
    except OSError as error:
        raise DatabaseNotUsableError(
            f"{path} cannot be reached: {error.strerror}; correct the {what}"
        ) from error


def _closed_directory(path: Path) -> Path:
    """Return the lowest reachable directory above ``path``, which this user may not enter."""
    above = Path(os.path.realpath(path)).parents
    for directory in above:
        with contextlib.suppress(OSError):
            os.stat(directory)
            return directory
    return path.parent


def check_directory(path: Path, what: str = "path") -> None:
    """Raise :class:`DatabaseNotUsableError` if no file can be at ``path``; see :func:`mode_of`."""
    if (mode := mode_of(path, what)) is not None:
        if stat.S_ISDIR(mode):
            raise DatabaseNotUsableError(f"{path} is a directory; give the path of a file in it")
        return
    above = mode_of(path.parent, what)
    if above is not None and not stat.S_ISDIR(above):
        raise DatabaseNotUsableError(f"{path.parent} is not a directory; correct the {what}")
    if above is None:
        raise DatabaseNotUsableError(
            f"the directory {path.parent} does not exist; create it, or correct the {what}"
        )


def open_regular(path: str, remedy: str) -> int:
    """Open the regular file ``path`` for reading, without waiting; return its descriptor.

    Raises ``OSError`` as ``open()`` does, and :class:`DatabaseNotUsableError` with ``remedy`` if
    ``path`` is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | FLAGS)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise _not_regular(path, remedy) from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _not_regular(path, remedy)


_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
}


def _not_regular(path: str, remedy: str) -> DatabaseNotUsableError:
    kind = "a device"
    with contextlib.suppress(OSError):
        kind = _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode), kind)
    return DatabaseNotUsableError(
        f"{path} is {kind}, but must be a regular file; find out what put it there, and remove "
        f"it{remedy}"
    )
