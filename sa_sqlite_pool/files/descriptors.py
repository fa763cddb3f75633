"""The descriptors of this process, as far as the system lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DIRECTORIES = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}  # others do not list all


def descriptor_of(device: int, inode: int) -> int | None:
    """Return a descriptor by which this process has a file open; None if it has it not.

    Raise ``OSError`` where the system does not tell.
    """
    return next(_descriptors_of(device, inode), None)


def is_open_for_writing(device: int, inode: int) -> bool:
    """Return whether this process has a file open to write; False if the system does not tell."""
    if fcntl is None:
        return False
    try:
        flags = [fcntl.fcntl(each, fcntl.F_GETFL) for each in _descriptors_of(device, inode)]
    except OSError:
        return False
    return any(each & os.O_ACCMODE != os.O_RDONLY for each in flags)


def _descriptors_of(device: int, inode: int) -> Iterator[int]:
    for name in os.listdir(_DIRECTORIES.get(sys.platform, "")):
        try:
            found = os.fstat(int(name))
        except OSError:  # it was the descriptor of the listing itself, or was closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            yield int(name)
