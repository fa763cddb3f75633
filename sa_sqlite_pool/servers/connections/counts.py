"""Counters of the connections of one engine to servers."""

from __future__ import annotations

from typing import final

from ...stats.counts import ConnectionCounts, EngineCounts, Runs
from ...stats.engines import TransactionsStatistics
from ...stats.wait_counter import WaitCounter

_MOST_TEXTS = 500


@final
class PoolCounts:
    """Counters of an engine's statements and transactions: one loop counts, any thread may read.

    ``engine`` counts the statements, and records since when; ``process_waits`` counts the waits for
    other processes that hold the write turn.

    :param only_reads: whether every transaction that ends counts as a read
    """

    def __init__(self, *, only_reads: bool = False) -> None:
        self._only_reads = only_reads
        self.engine = EngineCounts()
        self._all: ConnectionCounts = self.engine.new_connection(self)
        self.process_waits = WaitCounter()
        self.self_deadlocks = 0

    def ran(self, sql: str, seconds: float) -> None:
        """Count a statement, and the time from its beginning to its result."""
        self._runs(sql).ran_inline(seconds)

    def failed(self, sql: str) -> None:
        """Count a statement that raised an error."""
        self._runs(sql).failed += 1

    def _runs(self, sql: str) -> Runs:
        known = self._all.by_text
        if (found := known.get(sql)) is None:
            if len(known) >= _MOST_TEXTS:
                self._all.drop(next(iter(known)))
            found = self._all.of(sql)
        return found

    def committed(self, seconds: float) -> None:
        """Count a COMMIT."""
        if self._only_reads:
            self._all.reads += 1
        else:
            self._all.committed(seconds)

    def rolled_back(self) -> None:
        """Count a ROLLBACK."""
        if self._only_reads:
            self._all.reads += 1
        else:
            self._all.rollbacks += 1

    def lost(self) -> None:
        """Count a transaction that was lost with its connection."""
        self._all.lost += 1

    def transactions(self) -> TransactionsStatistics:
        """Return the statistics of the transactions. It may be called in any thread."""
        found = self._all
        return TransactionsStatistics(
            reads=found.reads,
            commits=found.commits,
            rollbacks=found.rollbacks,
            lost=found.lost,
            commit_seconds=found.commit_seconds,
            longest_commit_seconds=found.longest_commit,
        )
