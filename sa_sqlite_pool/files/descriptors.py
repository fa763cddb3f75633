"""The descriptors of this process, as far as the system lists them."""

from __future__ import annotations

import os
import sys

_DIRECTORIES = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}  # other systems do not list all


def descriptor_of(device: int, inode: int) -> int | None:
    """Return a descriptor of a file that this process has open; None if it is not open.

    Raise ``OSError`` where the system does not list descriptors.
    """
    for name in os.listdir(_DIRECTORIES.get(sys.platform, "")):
        try:
            found = os.fstat(int(name))
        except OSError:  # the descriptor of the listing itself, or one that was closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            return int(name)
    return None
