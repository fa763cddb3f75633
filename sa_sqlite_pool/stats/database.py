"""Statistics of a database, which contain all others."""

from __future__ import annotations

from dataclasses import dataclass, field

from .engines import EngineStatistics
from .lines import TurnStatistics
from .log import CheckpointsStatistics, GapsStatistics, ReaderStatistics, WalStatistics
from .snapshot import Snapshot, counter, find, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionsStatistics(Snapshot):
    """Functions passed to ``run_read()``, ``run_write()`` and their ``_core`` forms.

    ``reads`` ran in ``read_hops`` hops to a thread. ``writes`` were committed, in ``groups`` with
    one COMMIT each; ``largest_group`` is the most that shared one. The ``…_timed_out`` did not run.
    In a line's statistics, a group of functions is one wait, which such a time-out does not end.
    """

    reads: int = counter()
    read_hops: int = counter()
    writes: int = counter()
    groups: int = counter()
    largest_group: int = 0
    reads_timed_out: int = counter()
    writes_timed_out: int = counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseStatistics(Snapshot):
    """A snapshot of a database in this process.

    :meth:`~sa_sqlite_pool.SQLiteDatabase.statistics` and :func:`~sa_sqlite_pool.statistics` return
    it. Counters start with the engines (the file's, of turn, gaps and checkpoints, with its first
    engine) and only grow. ``later - earlier`` contains what happened in between, and its
    ``seconds`` is the time between the two: ``.commits / .seconds`` is a rate.

    ``seconds`` is the age of the counters. ``reading`` is the number of read transactions, and
    ``oldest_reader`` is the oldest of them. ``wal`` is None if there is no write-ahead log: in
    another journal mode, or if the file is not writable.
    """

    name: str
    seconds: float = counter(0.0)
    turn: TurnStatistics = field(default_factory=TurnStatistics)
    engines: tuple[EngineStatistics, ...] = rows("role")
    reading: int = 0
    oldest_reader: ReaderStatistics | None = None
    gaps: GapsStatistics = field(default_factory=GapsStatistics)
    checkpoints: CheckpointsStatistics = field(default_factory=CheckpointsStatistics)
    functions: FunctionsStatistics = field(default_factory=FunctionsStatistics)
    wal: WalStatistics | None = None

    def engine(self, role: str) -> EngineStatistics:
        """Return the statistics of the engine of ``role``; raise ``KeyError`` if it has none."""
        return find(self.engines, "role", role)
