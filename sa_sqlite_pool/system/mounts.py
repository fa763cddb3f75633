"""The file system that a path is on, and whether SQLite's locks and shared memory work there.

"All processes using a database must be on the same host computer; WAL does not work over a network
filesystem" (https://www.sqlite.org/wal.html). SQLite does not check: it switches to WAL there, and
then raises an I/O error if memory cannot be mapped, or corrupts the database if one machine does
not see the locks of another (https://www.sqlite.org/howtocorrupt.html).

Linux lists the mounts of a process in ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)). Reading it
touches none of them, so it does not wait for a server that is gone. On other systems Python can
only tell that a Windows path is on another machine. Unknown types of file systems raise no doubt.
"""

from __future__ import annotations

import ntpath
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")

_NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "smb2",
        "smb3",
        "smbfs",
        "windows-share",
    }
)
# Host directories in a virtual machine or container; drvfs is that of WSL 1.
_OF_HOST = frozenset(
    {
        "9p",
        "drvfs",
        "fakeowner",
        "grpcfuse",
        "osxfs",
        "prl_fs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
        "vmhgfs-fuse",
    }
)
# The kernel serves these on its own; at most it waits for a disk.
_AT_HAND = frozenset(
    {
        "bcachefs",
        "btrfs",
        "devtmpfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "overlay",
        "ramfs",
        "rootfs",
        "tmpfs",
        "xfs",
        "zfs",
    }
)
# The number of symbolic links that the kernel follows in one path (path_resolution(7)).
_MOST_LINKS = 40
# A block device, for example with NTFS, or the layers of a container: no other machine can mount
# them. The kernel itself manages the locks and maps the memory.
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system. ``type`` is the kernel's name for it, such as ``nfs4``."""

    id: int
    parent: int
    point: str
    type: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.type}, mounted at {self.point}"

    @property
    def doubt(self) -> str | None:
        """The reason why SQLite's locks and shared memory are not reliable; None if they are."""
        if self.type in _LOCAL_FUSE:
            return None
        if self.type in _NETWORK:
            return "other machines may see neither its locks nor its shared memory"
        if self.type.removeprefix("fuse.") in _OF_HOST:
            return "the host's processes share neither locks nor memory with those here"
        if self.type == "fuse" or self.type.startswith("fuse."):
            return (
                "a FUSE program serves it, and may not pass on locks, or share memory with other "
                "processes that have the file open"
            )
        return None

    @property
    def at_hand(self) -> bool:
        """True if access to its files involves only this machine's kernel and disks."""
        # An overlay's layers may be anywhere, but no container runs without those of its root.
        return self.type in _AT_HAND and (self.type != "overlay" or self.point == "/")

    def holds(self, path: str) -> bool:
        """Return whether ``path`` is the mount point or below it."""
        return path == self.point or path.startswith(self.point.rstrip("/") + "/")


def find_mount(path: str) -> Mount | None:
    """Return the mount of a real path, None if it is unknown. Does not access the path itself."""
    if os.name == "nt":
        return windows_share(path)
    return mount_of(path, _all_mounts())


def _all_mounts() -> tuple[Mount, ...]:
    try:
        return parse_mounts(_MOUNTINFO.read_bytes())
    except OSError:
        return ()


def find_at_hand(path: str) -> tuple[str, Mount] | None:
    """Return the real path and its mount; None if a step there may wait for a server or a program.

    Follows links as the kernel does, and reads none beyond a mount that is not at hand.
    """
    mounts = _all_mounts()
    away = {mount.point for mount in mounts if not mount.at_hand}
    if not mounts or "/" in away or not path.startswith("/"):
        return None
    real, left, links = "", path.split("/")[::-1], 0
    while left:
        name = left.pop()
        if name == "..":
            real = real.rpartition("/")[0]
        elif name not in {"", "."}:
            step = f"{real}/{name}"
            if step in away:
                return None
            try:
                target = os.readlink(step)
            except OSError:  # not a link, or does not exist yet
                real = step
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            real = "" if target.startswith("/") else real
            left += target.split("/")[::-1]
    mount = mount_of(real or "/", mounts)
    return None if mount is None else (real or "/", mount)


@lru_cache(maxsize=1)
def parse_mounts(mountinfo: bytes) -> tuple[Mount, ...]:
    """Return the mounts in ``mountinfo``, in order; skip lines in an unknown format.

    The last result is cached, since mounts seldom change from one opening to the next.
    """
    mounts = []
    for line in mountinfo.splitlines():
        try:
            mounts.append(_parse(line.split(b" ")))
        except (IndexError, ValueError):
            continue
    return tuple(mounts)


def _parse(fields: list[bytes]) -> Mount:
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    # id parent  root  point options  (optional ones) type source  options of the file system
    end = fields.index(b"-", 6)
    options = fields[5].split(b",") + fields[end + 3].split(b",")
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        point=os.fsdecode(_OCTAL.sub(_character, fields[4])),
        type=os.fsdecode(fields[end + 1]),
        read_only=b"ro" in options,
    )


_OCTAL = re.compile(rb"\\([0-7]{3})")  # how space, tab, newline and backslash are escaped


def _character(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that ``path``, a real path, is on.

    Walks down from the root as the kernel does: each step goes to a mount whose parent is the mount
    found last. So a mount covered by a later one is not found, however long its mount point is.
    """
    left = list(mounts)
    known = {mount.id for mount in left}
    left = [mount for mount in left if path.startswith(mount.point) and mount.holds(path)]
    found: Mount | None = None
    while True:
        steps = [mount for mount in left if _is_next(mount, found, known)]
        if not steps:
            return found
        found = min(steps, key=lambda mount: len(mount.point))  # the first along the path
        left.remove(found)


def _is_next(mount: Mount, found: Mount | None, known: set[int]) -> bool:
    if found is None:  # the root's own parent is not listed, or is itself
        return mount.parent not in known or mount.parent == mount.id
    return mount.parent == found.id


def windows_share(path: str) -> Mount | None:
    r"""Return the share of ``\\server\share\app.db``, as ``realpath`` resolves mapped drives."""
    share = ntpath.splitdrive(path)[0]
    if not share.startswith("\\\\") or share.startswith(("\\\\?\\", "\\\\.\\")):
        return None
    return Mount(0, 0, share, "windows-share")
