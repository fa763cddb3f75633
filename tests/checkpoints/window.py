"""The moment in which a checkpoint can lose commits, held open.

A checkpoint copies the header of the log's index into its own memory, and then checks how much of
that log is in the database. Between the two steps, another process may restart the log: a window of
a few instructions, in which SQLite calls nothing, with one exception. A connection that maps the
database into memory (``PRAGMA mmap_size``) and finds a new header releases its mapping right there
(``sqlite3OsUnfetch`` in ``sqlite3WalCheckpoint``, wal.c), with ``munmap``. And system calls can be
replaced (``xSetSystemCall``, https://www.sqlite.org/c3ref/vfs.html), for tests such as this one.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_MAPPED_BYTES = 2**20
_LOCKS = Path("/proc/locks")
_CHECKPOINT_BYTE = 121  # https://www.sqlite.org/walformat.html#wal_locks

_Unmap = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_OnOpen = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_GetSystemCall = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_SetSystemCall = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

_METHODS = (
    *("xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose"),
    *("xRandomness", "xSleep", "xCurrentTime", "xGetLastError", "xCurrentTimeInt64"),
)


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, version 3."""

    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("zName", ctypes.c_char_p),
        ("pAppData", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in _METHODS),
        ("xSetSystemCall", _SetSystemCall),
        ("xGetSystemCall", _GetSystemCall),
    )


def why_not() -> str | None:
    """Return why the moment cannot be held open here; None if it can."""
    if not _LOCKS.exists():
        return f"there is no {_LOCKS} here"
    try:
        library = _library()
        name = library.sqlite3_vfs_find(None).contents.zName
    except (AttributeError, OSError, ValueError) as error:
        return f"SQLite's functions cannot be called: {error}"
    if name != b"unix" or library.sqlite3_libversion() != sqlite3.sqlite_version.encode():
        return f"SQLite is another one: {library.sqlite3_libversion()!r}, VFS {name!r}"
    connection = sqlite3.connect(":memory:")
    options = {option for (option,) in connection.execute("PRAGMA compile_options")}
    connection.close()
    return "SQLite maps no files here" if "MAX_MMAP_SIZE=0" in options else None


def _library() -> Any:
    """Return the SQLite library with which ``sqlite3`` is linked."""
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    library.sqlite3_libversion.restype = ctypes.c_char_p
    library.sqlite3_exec.argtypes = [ctypes.c_void_p, ctypes.c_char_p, *[ctypes.c_void_p] * 3]
    return library


class Window:
    """``with Window(database, inside)``: call ``inside()`` whenever that moment arrives.

    It arrives in checkpoints of connections that are opened in the block and that read from the
    database, beyond its first page, before another process wrote.
    """

    def __init__(self, database: Path, inside: Callable[[], object]) -> None:
        self._index = Path(f"{database}-shm")
        self._inside = inside
        self._library = _library()
        self._vfs = self._library.sqlite3_vfs_find(None)
        self._real_unmap = _Unmap(self._vfs.contents.xGetSystemCall(self._vfs, b"munmap"))
        # Referenced here, since SQLite holds no reference.
        self._unmap, self._on_open = _Unmap(self._unmap_file), _OnOpen(self._map_file)

    def __enter__(self) -> Window:
        self._library.sqlite3_auto_extension(self._on_open)
        self._replace_unmap(ctypes.cast(self._unmap, ctypes.c_void_p))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._replace_unmap(None)
        self._library.sqlite3_cancel_auto_extension(self._on_open)

    def _replace_unmap(self, function: ctypes.c_void_p | None) -> None:
        self._vfs.contents.xSetSystemCall(self._vfs, b"munmap", function)

    def _map_file(self, connection: int, _error: int, _functions: int) -> int:
        code: int = self._library.sqlite3_exec(
            connection, f"PRAGMA mmap_size = {_MAPPED_BYTES}".encode(), None, None, None
        )
        return code

    def _unmap_file(self, address: int, size: int) -> int:
        # Reads release mappings, too; only a checkpoint does so while holding the checkpoint lock.
        if self._checkpoint_runs():
            self._inside()
        code: int = self._real_unmap(address, size)
        return code

    def _checkpoint_runs(self) -> bool:
        """Return whether this process holds the checkpoint lock, without opening database files."""
        try:
            file = os.stat(self._index)
        except FileNotFoundError:  # the last connection is being closed
            return False
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
        for line in _LOCKS.read_text().splitlines():
            # 1: POSIX  ADVISORY  WRITE 4242 fd:00:1311 121 121
            mode, process, place, first, last = line.split()[-5:]
            mine = (mode, process, place) == ("WRITE", str(os.getpid()), device)
            if mine and int(first) <= _CHECKPOINT_BYTE <= int(last):
                return True
        return False
