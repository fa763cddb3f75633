"""The descriptors of this process, as far as the system lists them."""

from __future__ import annotations

import os
import sys

_DIRECTORIES = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}  # others do not list all


def descriptor_of(device: int, inode: int) -> int | None:
    """Return a descriptor by which this process has a file open; None if it has it not.

    Raise ``OSError`` where the system does not tell.
    """
    for name in os.listdir(_DIRECTORIES.get(sys.platform, "")):
        try:
            found = os.fstat(int(name))
        except OSError:  # it was the descriptor of the listing itself, or was closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            return int(name)
    return None
