"""What users read about a database: frozen snapshots."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from .errors import ConfigurationError


class CheckpointMode(enum.Enum):
    """https://www.sqlite.org/pragma.html#pragma_wal_checkpoint"""

    PASSIVE = "passive"
    FULL = "full"
    RESTART = "restart"
    TRUNCATE = "truncate"

    @classmethod
    def parse(cls, mode: str) -> CheckpointMode:
        try:
            return cls(mode)
        except ValueError:
            names = ", ".join(repr(known.value) for known in cls)
            raise ConfigurationError(f"mode must be one of {names}, not {mode!r}") from None


class CheckpointOutcome(enum.Enum):
    """What the three numbers of a checkpoint mean."""

    MOVED_ALL = "moved_all"
    """The whole log is in the database, too; the log begins anew as soon as no transaction reads
    from it."""
    TRUNCATED = "truncated"
    """Everything is in the database, and the file is empty, or has the one frame that begins it
    anew."""
    HELD_BACK = "held_back"
    """A reader of an old state keeps a part from being moved, or the log from being truncated."""
    BUSY = "busy"
    """Another connection holds the lock for writing, or runs a checkpoint."""
    NOT_WAL = "not_wal"
    """The database has no write-ahead log."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint did.

    ``busy``, ``frames`` and ``moved`` are the three numbers that SQLite returned last: whether a
    FULL, RESTART or TRUNCATE was kept from it, how many frames are in the log, and how many of
    them are in the database; -1 where SQLite does not say. ``seconds`` is how long it has kept
    writers waiting. ``held_back_by`` describes the reader in the way, None if there is none.
    """

    mode: CheckpointMode
    outcome: CheckpointOutcome
    busy: bool
    frames: int
    moved: int
    seconds: float
    held_back_by: str | None = None
    salts: tuple[int, ...] = field(default=(), repr=False, compare=False)
    """Which log it was: others whenever the log has begun anew."""


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
    ``checkpointed`` of them were in the database, too, after the last checkpoint of this process.
    ``held_back_by`` says why that one stopped short, None if it did not. ``limit`` is the hard
    limit in bytes; the soft limit is the one above which the log is tidied up in quiet moments.

    ``sqlite_version`` is SQLite's, and ``reset_bug`` whether it can lose commits when programs that
    do not know this package write or checkpoint the same file (SQLite's "WAL-reset bug");
    ``outside_writers`` are those that were met writing (told by the system on Linux alone).
    """

    size: int
    frames: int
    checkpointed: int
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
