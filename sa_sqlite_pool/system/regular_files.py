"""Files of the package's own beside a database, where anything may be in their place.

In a directory that several users write, one may put a FIFO there, and opening it would wait for a
process that writes into it: on the event loop, for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ..errors import DatabaseNotUsableError

# No symbolic link is followed. The database's own are, before, so nobody has a reason to put one
# here; what it leads to would be locked or truncated.
FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

# What open() says of a symbolic link, and of a socket or a device that is not there.
_NOT_REGULAR = frozenset({errno.ELOOP, errno.ENXIO})


def open_regular(path: str, remedy: str) -> int:
    """Open the regular file ``path`` for reading, without waiting; return its descriptor.

    Raises ``OSError`` as ``open()`` does, and :class:`DatabaseNotUsableError` with ``remedy`` where
    it is something else.
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
        f"{path} is {kind}, where a regular file belongs; find out what has put it there, and "
        f"remove it{remedy}"
    )
