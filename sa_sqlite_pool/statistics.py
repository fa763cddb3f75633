"""What users read about a database: frozen snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from .wal.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """One read transaction: ``seconds`` old; ``who`` names its task, where it is, its last SQL.

    ``long`` says that it was declared long, ``outstayed`` that the log waited for it in vain.
    """

    seconds: float
    who: str
    long: bool
    outstayed: bool


@dataclass(frozen=True, slots=True)
class WalStatistics:
    """The write-ahead log of a database.

    ``size`` is that of the ``-wal`` file in bytes. ``frames`` are in use, each a page and 24 bytes;
    ``moved`` of them were in the database, too, after the last checkpoint of this process.
    ``held_back_by`` says why that one stopped short, None if it did not. ``limit`` is the hard
    limit in bytes; the soft limit is the one above which the log is tidied up in quiet moments.

    ``sqlite_version`` is SQLite's, and ``reset_bug`` whether it can lose commits when programs that
    do not know this package write or checkpoint the same file (SQLite's "WAL-reset bug");
    ``outside_writers`` are those that were met writing (told by the system on Linux alone).
    """

    size: int
    frames: int
    moved: int
    soft_limit: int | None
    limit: int | None
    last_checkpoint: Checkpoint | None
    held_back_by: str | None
    oldest_reader: ReaderStatistics | None
    sqlite_version: str
    reset_bug: bool
    outside_writers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """What :meth:`~sa_sqlite_pool.SQLiteDatabase.statistics` returns.

    ``wal`` is None where there is no write-ahead log: in another journal mode, or where the file
    cannot be written.
    """

    wal: WalStatistics | None
