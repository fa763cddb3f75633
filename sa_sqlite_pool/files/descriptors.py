"""The descriptors of this process, as far as the system lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DIRECTORIES = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}  # other systems do not list all


def descriptor_of(device: int, inode: int) -> int | None:
    """Return a descriptor of a file that this process has open; None if it is not open.

    Raise ``OSError`` where the system does not list descriptors.
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
        except OSError:  # the descriptor of the listing itself, or one that was closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            yield int(name)
