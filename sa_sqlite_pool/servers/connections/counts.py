"""What the connections of one engine to servers have counted."""

from __future__ import annotations

from typing import final

from ...stats.counts import ConnectionCounts, EngineCounts, Runs
from ...stats.engines import TransactionsStatistics
from ...stats.wait_counter import WaitCounter

_MOST_TEXTS = 500


@final
class PoolCounts:
    """The statements and transactions of an engine. One event loop counts, any thread may look.

    ``engine`` has the statements, and since when it counts; ``process_waits`` are waits for other
    processes that have the write turn.

    :param only_reads: whether the ends of its transactions are ends of reads
    """

    def __init__(self, *, only_reads: bool = False) -> None:
        self._only_reads = only_reads
        self.engine = EngineCounts()
        self._all: ConnectionCounts = self.engine.new_connection(self)
        self.process_waits = WaitCounter()
        self.self_deadlocks = 0

    def ran(self, sql: str, seconds: float) -> None:
        """Count a statement, with the time from its beginning to its result."""
        self._runs(sql).ran_inline(seconds)

    def failed(self, sql: str) -> None:
        """Count a statement that has raised an error."""
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
        """Count a transaction that has ended with its connection."""
        self._all.lost += 1

    def transactions(self) -> TransactionsStatistics:
        """Return the transactions. In any thread."""
        found = self._all
        return TransactionsStatistics(
            reads=found.reads,
            commits=found.commits,
            rollbacks=found.rollbacks,
            lost=found.lost,
            commit_seconds=found.commit_seconds,
            longest_commit_seconds=found.longest_commit,
        )
