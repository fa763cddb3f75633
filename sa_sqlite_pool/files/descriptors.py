"""The descriptors of this process, as far as the system lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LINKS = "/proc/self/fd"  # on Linux: links to the files that are open
_DIRECTORIES = {"linux": _LINKS, "darwin": "/dev/fd"}  # other systems do not list all


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


def is_open_elsewhere(descriptor: int, device: int, inode: int) -> bool:
    """Return whether this process has a file open by another descriptor; True if it cannot tell."""
    try:
        return any(each != descriptor for each in _descriptors_of(device, inode))
    except OSError:
        return True


def deleted_but_open(path: str) -> tuple[int, int] | None:
    """Return device and inode of a deleted file ``path`` that this process has open to write.

    None if there is none, or if the system does not tell the names of descriptors.
    """
    for name in os.listdir(_LINKS) if os.path.isdir(_LINKS) else ():
        try:
            # "If the pathname has been unlinked, the symbolic link will contain the string
            # '(deleted)' appended to the original pathname": proc_pid_fd(5)
            if os.readlink(f"{_LINKS}/{name}") == f"{path} (deleted)":
                found = os.fstat(int(name))
                if is_open_for_writing(found.st_dev, found.st_ino):
                    return found.st_dev, found.st_ino
        except OSError:
            continue
    return None


def _descriptors_of(device: int, inode: int) -> Iterator[int]:
    for name in os.listdir(_DIRECTORIES.get(sys.platform, "")):
        try:
            found = os.fstat(int(name))
        except OSError:  # the descriptor of the listing itself, or one that was closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            yield int(name)
