"""``serialize()`` and ``deserialize()`` for a file in the place of a database in memory.

``sqlite3_deserialize()`` "causes the S-schema on database connection D to disconnect from database
F, if any, and then open the content of buffer P as an in-memory database"
(https://www.sqlite.org/c3ref/deserialize.html): without an error, this connection would use another
database than all others of its engine. So the content is copied into the file.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

# https://www.sqlite.org/fileformat2.html#file_format_version_numbers: "1 for rollback journalling
# modes and 2 for WAL". A database in memory with WAL cannot be opened.
_VERSIONS = slice(18, 20)
_NO_WAL = b"\x01\x01"

_LOCKED = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED


def with_images(factory: Any) -> Any:
    """Return the subclass of ``factory`` whose images are those of a database in memory.

    Return ``factory`` itself if it is not a class, and before Python 3.11, which has no images.
    """
    is_class = isinstance(factory, type) and hasattr(factory, "deserialize")
    return _subclass(factory) if is_class else factory


@cache
def _subclass(base: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
    class ConnectionWithImages(base):  # type: ignore[misc, valid-type]
        """A connection to a file that takes the place of a database in memory."""

        def serialize(self, *, name: str = "main") -> bytes:
            return _without_wal(super().serialize(name=name))

        def deserialize(self, data: Any, /, *, name: str = "main") -> None:
            if name != "main":
                super().deserialize(data, name=name)
                return
            with tempfile.TemporaryDirectory(prefix="sa_sqlite_pool-") as directory:
                path = Path(directory) / "image.db"
                path.write_bytes(_without_wal(bytes(data)))
                with closing(sqlite3.Connection(str(path), isolation_level=None)) as image:
                    _copy(image, self)

    return ConnectionWithImages


def _without_wal(image: bytes) -> bytes:
    if len(image) < _VERSIONS.stop:
        return image
    return image[: _VERSIONS.start] + _NO_WAL + image[_VERSIONS.stop :]


def _copy(image: sqlite3.Connection, target: sqlite3.Connection) -> None:
    # "The sqlite3_backup_step() might return SQLITE_READONLY if … the destination is using
    # write-ahead-log journal mode and the destination and source page sizes differ":
    # https://www.sqlite.org/c3ref/backup_finish.html
    (size,) = target.execute("PRAGMA page_size").fetchone()
    if image.execute("PRAGMA page_size").fetchone() != (size,):
        image.execute("PRAGMA journal_mode = OFF")
        image.execute("PRAGMA synchronous = OFF")
        image.execute(f"PRAGMA page_size = {size}")
        image.execute("VACUUM")

    def progress(status: int, _remaining: int, _total: int) -> None:
        if status & 0xFF in _LOCKED:  # backup() would retry forever
            raise sqlite3.OperationalError("database is locked")

    image.backup(target, progress=progress)
