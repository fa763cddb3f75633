"""Figures of the growth of the log, and their targets."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..measuring.clocks import percentile
from ..measuring.environment import Environment
from ..report.asked import Asked, at_least, at_most
from ..report.results import Books, Spread
from .growth import Growth
from .log_size import MIB


@dataclass(frozen=True, slots=True)
class GrowthRun:
    """One contender in one round. Waits are None if there were no readers."""

    contender: str
    round: int
    transactions_a_second: float
    largest_log_mib: float
    log_at_the_end_mib: float
    reads: int
    wait_p50_ms: float | None
    wait_p99_ms: float | None
    wait_max_ms: float | None
    errors: dict[str, int]
    read_errors: int
    books: Books

    @classmethod
    def of(cls, contender: str, round_: int, growth: Growth, found: int) -> GrowthRun:
        """Return the figures of ``growth``; ``found`` is the number of transactions in the file."""
        waits = growth.waits_s
        written = growth.warm_up.acknowledged + growth.writes.acknowledged
        return cls(
            contender=contender,
            round=round_,
            transactions_a_second=growth.writes.acknowledged / growth.seconds,
            largest_log_mib=growth.largest_log / MIB,
            log_at_the_end_mib=growth.log_at_the_end / MIB,
            reads=growth.reads.acknowledged,
            wait_p50_ms=percentile(waits, 50) * 1000 if waits else None,
            wait_p99_ms=percentile(waits, 99) * 1000 if waits else None,
            wait_max_ms=max(waits) * 1000 if waits else None,
            errors=dict(growth.warm_up.errors + growth.writes.errors + growth.reads.errors),
            read_errors=sum(growth.reads.errors.values()),
            books=Books(written, found),
        )


@dataclass(frozen=True, slots=True)
class GrowthSummary:
    """One contender over all rounds; errors are summed over them."""

    contender: str
    transactions_a_second: Spread
    largest_log_mib: Spread
    log_at_the_end_mib: Spread
    reads: Spread
    wait_p50_ms: Spread | None
    wait_p99_ms: Spread | None
    wait_max_ms: Spread | None
    errors: dict[str, int]

    @classmethod
    def of(cls, runs: Sequence[GrowthRun]) -> GrowthSummary:
        """Return the summary of ``runs``, all of one contender."""
        return cls(
            contender=runs[0].contender,
            transactions_a_second=Spread.of([run.transactions_a_second for run in runs]),
            largest_log_mib=Spread.of([run.largest_log_mib for run in runs]),
            log_at_the_end_mib=Spread.of([run.log_at_the_end_mib for run in runs]),
            reads=Spread.of([run.reads for run in runs]),
            wait_p50_ms=_spread(runs, lambda run: run.wait_p50_ms),
            wait_p99_ms=_spread(runs, lambda run: run.wait_p99_ms),
            wait_max_ms=_spread(runs, lambda run: run.wait_max_ms),
            errors=dict(sum((Counter(run.errors) for run in runs), Counter())),
        )


def _spread(
    runs: Sequence[GrowthRun], figure: Callable[[GrowthRun], float | None]
) -> Spread | None:
    values = [value for run in runs if (value := figure(run)) is not None]
    return Spread.of(values) if values else None


def asked(ours: Sequence[GrowthRun], alone: Sequence[GrowthRun]) -> list[Asked]:
    """Return the targets and measurements, with readers and for the writer alone.

    The worst round counts, except for the median of a ratio.
    """
    pairs = zip(ours, alone, strict=True)
    share = statistics.median(
        one.transactions_a_second / other.transactions_a_second for one, other in pairs
    )
    return [
        at_most("log at its largest, MiB", 128, [run.largest_log_mib for run in ours]),
        at_most("log at the end, MiB", 16, [run.log_at_the_end_mib for run in ours]),
        at_least("writer, share of a writer alone", 0.8, [share]),
        at_most("read errors", 0, [run.read_errors for run in ours]),
        at_most("longest wait of a reader, ms", 600, [run.wait_max_ms or 0 for run in ours]),
    ]


@dataclass(frozen=True, slots=True)
class GrowthReport:
    """All results of a run of ``python -m benchmarks.wal_growth``."""

    environment: Environment
    rounds: int
    seconds: float
    summaries: list[GrowthSummary]
    asked: list[Asked]
    runs: list[GrowthRun]

    @property
    def books_balance(self) -> bool:
        return all(run.books.balance for run in self.runs)
