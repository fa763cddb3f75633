"""Which file system a path is on, and whether SQLite's locks and shared memory work there.

"All processes using a database must be on the same host computer; WAL does not work over a network
filesystem" (https://www.sqlite.org/wal.html). SQLite does not look: it switches to WAL there, and
what follows is an I/O error where memory cannot be mapped, or a corrupt database where the locks of
one machine are not seen by another (https://www.sqlite.org/howtocorrupt.html).

Linux lists the mounts of a process in ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)). Reading it
touches none of them, so a server that is gone cannot make it wait. Elsewhere Python tells the type
of no file system, only that a path of Windows is on another machine. What is not known is not said.
"""

from __future__ import annotations

import ntpath
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
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
# Directories of the host in a virtual machine or container; drvfs is that of WSL 1.
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
# A block device, say of NTFS, or the layers of a container: nobody else can have them mounted. The
# kernel itself keeps the locks and maps the memory.
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """One file system where it is mounted. ``type`` is the kernel's word, such as ``nfs4``."""

    id: int
    parent: int
    point: str
    type: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.type}, mounted at {self.point}"

    @property
    def doubt(self) -> str | None:
        """Why SQLite's locks and shared memory cannot be relied on; None where they can."""
        if self.type in _LOCAL_FUSE:
            return None
        if self.type in _NETWORK:
            return "other machines see neither its locks nor its shared memory for certain"
        if self.type.removeprefix("fuse.") in _OF_HOST:
            return "the host's processes share neither locks nor memory with those here"
        if self.type == "fuse" or self.type.startswith("fuse."):
            return (
                "a FUSE program serves it, and need not pass on locks or let memory be shared with "
                "whoever else has the file open"
            )
        return None

    def holds(self, path: str) -> bool:
        """Whether ``path`` is its mount point, or below it."""
        return path == self.point or path.startswith(self.point.rstrip("/") + "/")


def find_mount(path: str) -> Mount | None:
    """The file system of a real path; None where the system does not say. Does not touch it."""
    if os.name == "nt":
        return windows_share(path)
    try:
        mountinfo = _MOUNTINFO.read_bytes()
    except OSError:
        return None
    return mount_of(path, parse_mounts(mountinfo))


def parse_mounts(mountinfo: bytes) -> list[Mount]:
    """The lines of ``mountinfo``, in their order; a line of another form is passed over."""
    mounts = []
    for line in mountinfo.splitlines():
        try:
            mounts.append(_parse(line.split(b" ")))
        except (IndexError, ValueError):
            continue
    return mounts


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


_OCTAL = re.compile(rb"\\([0-7]{3})")  # space, tab, newline and backslash are written so


def _character(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that ``path``, a real path, is on.

    Goes down from the root as the kernel does: at each step to what is mounted there on the mount
    it is on. So a mount that a later one covers is not found, whatever the lengths of their points.
    """
    left = list(mounts)
    known = {mount.id for mount in left}
    left = [mount for mount in left if mount.holds(path)]
    found: Mount | None = None
    while True:
        steps = [mount for mount in left if _is_next(mount, found, known)]
        if not steps:
            return found
        found = min(steps, key=lambda mount: len(mount.point))  # the first that is met
        left.remove(found)


def _is_next(mount: Mount, found: Mount | None, known: set[int]) -> bool:
    if found is None:  # the root's own parent is not listed, or is itself
        return mount.parent not in known or mount.parent == mount.id
    return mount.parent == found.id


def windows_share(path: str) -> Mount | None:
    r"""A path such as ``\\server\share\app.db``, which ``realpath`` makes of mapped drives too."""
    share = ntpath.splitdrive(path)[0]
    if not share.startswith("\\\\") or share.startswith(("\\\\?\\", "\\\\.\\")):
        return None
    return Mount(0, 0, share, "windows-share")
