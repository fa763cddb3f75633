"""The size of a log, determined from the ``-wal`` file alone.

The file does not shrink when SQLite restarts the log, so its size only shows how large the log once
was. The part in use follows from the format (https://www.sqlite.org/fileformat2.html
#the_write_ahead_log): the header has two salts, which change at each restart, and each frame
contains the salts that were valid when it was written. So the frames in use are the leading ones
with the header's salts, and their number is found by bisection.

Opening the ``-wal`` file is harmless. The database and ``-shm`` files must never be opened while
SQLite has them open: closing any of their descriptors drops SQLite's locks
(https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_).
"""

from __future__ import annotations

import contextlib
import os
import struct
from bisect import bisect_left
from typing import BinaryIO, NamedTuple

from .descriptors import descriptor_of

_HEADER = struct.Struct(">8I")
_HEADER_SALTS = slice(4, 6)
_FRAME_HEADER = struct.Struct(">6I")
_FRAME_SALTS = slice(2, 4)
_MAGIC = frozenset({0x377F0682, 0x377F0683})


class LogSize(NamedTuple):
    """The ``size`` of the file in bytes, and the ``frames`` in use, of ``frame_size`` bytes each.

    ``salts`` change whenever the log restarts.
    """

    size: int = 0
    frames: int = 0
    frame_size: int = 0
    salts: tuple[int, ...] = ()

    @property
    def used(self) -> int:
        """The number of bytes in use."""
        return self.frames * self.frame_size

    @property
    def page_size(self) -> int:
        """The size of a page in bytes; 0 if the log has no header."""
        return max(0, self.frame_size - _FRAME_HEADER.size)


def measure(path: str) -> LogSize:
    """Return the size of the log ``path``, 0 if it cannot be read; this takes some twenty reads.

    Frames that a transaction has written before its COMMIT count, too.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open) as log:
            return _measure(log)
    except OSError:  # its last user has removed it, or it is not a file
        return LogSize()


def _open(path: str, flags: int) -> int:
    # If there is a FIFO instead, opening it must not wait.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _measure(log: BinaryIO) -> LogSize:
    size = os.fstat(log.fileno()).st_size
    header = log.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return LogSize(size)
    fields = _HEADER.unpack(header)
    magic, page_size, salts = fields[0], fields[2], fields[_HEADER_SALTS]
    if magic not in _MAGIC or page_size == 0:
        return LogSize(size)
    frame_size = _FRAME_HEADER.size + page_size

    def is_over(frame: int) -> bool:
        log.seek(_HEADER.size + frame * frame_size)
        found = log.read(_FRAME_HEADER.size)
        return len(found) < _FRAME_HEADER.size or (
            _FRAME_HEADER.unpack(found)[_FRAME_SALTS] != salts
        )

    frames = range(max(0, size - _HEADER.size) // frame_size)
    return LogSize(size, bisect_left(frames, True, key=is_over), frame_size, salts)


def sync_file(path: str) -> None:
    """Sync the ``-wal`` file to the disk; the module's docstring explains why only that file."""
    with contextlib.suppress(OSError):  # its last user has removed it; a checkpoint syncs again
        descriptor = _open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_open_file(path: str) -> None:
    """Sync a file that this process has open to the disk, through the existing descriptor.

    This has no effect where the system does not list descriptors, because the database must not be
    opened a second time. If the descriptor is closed meanwhile, another file is synced, or none:
    that is harmless, because the sync only saves the next checkpoint a wait.
    """
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if (descriptor := descriptor_of(found.st_dev, found.st_ino)) is not None:
            os.fsync(descriptor)
