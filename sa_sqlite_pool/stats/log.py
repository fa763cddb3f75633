"""Statistics of the write-ahead log and its checkpoints."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ..settings import choose
from .snapshot import Snapshot, counter


class CheckpointMode(enum.Enum):
    """The checkpoint modes: https://www.sqlite.org/pragma.html#pragma_wal_checkpoint"""

    PASSIVE = "passive"
    FULL = "full"
    RESTART = "restart"
    TRUNCATE = "truncate"

    @classmethod
    def parse(cls, mode: str) -> CheckpointMode:
        return choose(cls, "mode", mode)


class CheckpointOutcome(enum.Enum):
    """The meaning of a checkpoint's three numbers."""

    MOVED_ALL = "moved_all"
    """The whole log is in the database, too; the log begins anew as soon as no transaction reads
    from it."""
    TRUNCATED = "truncated"
    """The whole log is in the database, and the file is empty, or has only the first frame of its
    new content."""
    HELD_BACK = "held_back"
    """A reader of an old snapshot prevents part of the checkpoint, or the log's truncation."""
    BUSY = "busy"
    """Another connection holds the write lock, or runs a checkpoint."""
    NOT_WAL = "not_wal"
    """The database has no write-ahead log."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The result of a checkpoint.

    ``busy``, ``frames`` and ``moved`` are the three numbers that SQLite returned last: whether a
    FULL, RESTART or TRUNCATE was prevented, how many frames are in the log, and how many of them
    are in the database; -1 if SQLite does not say. ``seconds`` is how long it has kept writers
    waiting. ``held_back_by`` describes the reader in the way, None if there is none.
    """

    mode: CheckpointMode
    outcome: CheckpointOutcome
    busy: bool
    frames: int
    moved: int
    seconds: float
    held_back_by: str | None = None
    salts: tuple[int, ...] = field(default=(), repr=False, compare=False)
    """The salts of the log's header, which change whenever the log begins anew."""


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """One read transaction, ``seconds`` old; ``who`` names its task, where it is, and its last SQL.

    ``long`` says that it was declared long, ``outstayed`` that the log waited for it in vain.
    """

    seconds: float
    who: str
    long: bool
    outstayed: bool


@dataclass(frozen=True, slots=True)
class WalStatistics:
    """The write-ahead log of a database.

    ``size`` is the size of the ``-wal`` file in bytes. ``frames`` are in use, each a page and 24
    bytes; ``checkpointed`` of them were in the database, too, after the last checkpoint of this
    process. ``held_back_by`` says why that checkpoint stopped short, None if it did not. ``limit``
    is the hard limit in bytes; above ``soft_limit`` a checkpoint runs in a quiet moment.

    ``sqlite_version`` is SQLite's, and ``reset_bug`` whether it can lose commits when programs that
    do not know this package write or checkpoint the same file (SQLite's "WAL-reset bug");
    ``outside_writers`` are such programs that were found writing (known on Linux only).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsStatistics(Snapshot):
    """The checkpoints of this process, by outcome, and how long they have kept writers waiting."""

    moved_all: int = counter()
    truncated: int = counter()
    held_back: int = counter()
    busy: int = counter()
    seconds: float = counter(0.0)
    longest_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GapsStatistics(Snapshot):
    """Gaps between read transactions, in which a checkpoint can truncate the log.

    ``gaps`` have lasted ``seconds`` in all; ``readers_waited`` is how often a read waited for the
    end of one.
    """

    gaps: int = counter()
    seconds: float = counter(0.0)
    longest_seconds: float = 0.0
    readers_waited: int = counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotsStatistics(Snapshot):
    """The read transactions on a file: how many are ``open``, the ``oldest``, and the ``gaps``."""

    open: int = 0
    oldest: ReaderStatistics | None = None
    gaps: GapsStatistics = field(default_factory=GapsStatistics)
