"""The first hundred bytes of a database, read without SQLite.

They say whether the database has a log, which must be known before SQLite can open the file
(https://www.sqlite.org/fileformat2.html#the_database_header).
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatabaseNotUsableError, NotADatabaseError
from ..files.descriptors import descriptor_of
from ..files.open_files import open_files
from ..system.regular_files import mode_of

_SIZE = 100
_MAGIC = b"SQLite format 3\0"
_WAL = 2
_LARGEST_PAGE = 65536

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


@dataclass(frozen=True, slots=True)
class Header:
    """The relevant part of the header. ``wal`` is True if the file is in WAL mode."""

    page_size: int
    wal: bool


def check_regular(path: str) -> None:
    """Raise :class:`DatabaseNotUsableError` unless there is a regular file at ``path``."""
    if (mode := mode_of(Path(path))) is None:
        raise DatabaseNotUsableError(f"there is no file {path}; correct the path")
    if stat.S_ISDIR(mode):
        raise DatabaseNotUsableError(f"{path} is a directory; give the path of a file in it")
    if not stat.S_ISREG(mode):
        raise DatabaseNotUsableError(f"{path} is not a regular file; correct the path")


def check_readable(path: str) -> None:
    """Raise the same error if there is no regular file, or if this user may not read it."""
    check_regular(path)
    if not os.access(path, os.R_OK):
        raise DatabaseNotUsableError(
            f"{path} is not readable by this user; run this as its owner, or change its permissions"
        )


def read_header(file: str) -> Header | None:
    """Return the header of a database, or None if this process has the file open.

    In that case, closing any descriptor of the file would drop the locks of this process's
    connections (https://www.sqlite.org/howtocorrupt.html). May raise :class:`NotADatabaseError`.
    """
    if is_open_here(file):
        return None
    with open(file, "rb", buffering=0) as database:
        found = database.read(_SIZE)
    if len(found) < _SIZE or not found.startswith(_MAGIC):
        raise NotADatabaseError(
            f"{file} is not an SQLite database, or it is encrypted; it was not changed. Check the "
            "path, or decrypt a copy with the program that encrypts it, and examine that"
        )
    (page_size,) = struct.unpack_from(">H", found, 16)
    return Header(_LARGEST_PAGE if page_size == 1 else page_size, found[18] == _WAL)


def is_open_here(file: str) -> bool:
    """Return whether this process has the file open, as far as the system and the package know."""
    found = os.stat(file)
    try:
        return descriptor_of(found.st_dev, found.st_ino) is not None
    except OSError:
        return open_files.is_open(file)


def has_transaction(journal: str) -> bool:
    """Return whether a ``-journal`` contains a transaction; after its end, there is no header.

    SQLite locks neither journals nor logs, so opening them is harmless.
    """
    try:  # non-blocking: it may be a FIFO
        descriptor = os.open(journal, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return os.read(descriptor, len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC
    except OSError:
        return False
    finally:
        os.close(descriptor)
