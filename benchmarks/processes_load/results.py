"""Figures of processes that write to the same file, and their targets."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..measuring.clocks import percentile
from ..measuring.environment import Environment
from ..report.asked import Asked, at_least, at_most
from ..report.results import Books, Spread
from ..ways.settings import Settings
from .work import Share


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """The figures of one process of a run."""

    door: str
    transactions: int
    p99_ms: float
    max_ms: float
    loop_lag_p99_ms: float
    errors: dict[str, int]

    @classmethod
    def of(cls, share: Share) -> ProcessFigures:
        return cls(
            door=share.door,
            transactions=share.in_time,
            p99_ms=percentile(share.measured.latencies_s, 99) * 1000,
            max_ms=max(share.measured.latencies_s) * 1000,
            loop_lag_p99_ms=percentile(share.overshoots_s, 99) * 1000,
            errors=dict(share.measured.errors + share.warm_up.errors),
        )


@dataclass(frozen=True, slots=True)
class ProcessesRun:
    """One contender in one round; times cover all transactions of all processes.

    ``evenness`` is the smallest number of transactions of a process divided by the largest.
    ``settings`` contains the settings of each door.
    """

    contender: str
    round: int
    place: int
    throughput: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    evenness: float
    loop_lag_p99_ms: float
    errors: dict[str, int]
    books: Books
    settings: dict[str, Settings]
    processes: list[ProcessFigures]

    @classmethod
    def of(
        cls,
        contender: str,
        round_: int,
        place: int,
        shares: Sequence[Share],
        *,
        seconds: float,
        found: int,
    ) -> ProcessesRun:
        """Return the figures of ``shares``; ``found`` is the number of transactions in the file."""
        latencies_s = [latency for share in shares for latency in share.measured.latencies_s]
        counts = [share.in_time for share in shares]
        processes = [ProcessFigures.of(share) for share in shares]
        return cls(
            contender=contender,
            round=round_,
            place=place,
            throughput=sum(counts) / seconds,
            p50_ms=percentile(latencies_s, 50) * 1000,
            p99_ms=percentile(latencies_s, 99) * 1000,
            max_ms=max(latencies_s) * 1000,
            evenness=min(counts) / max(1, *counts),
            loop_lag_p99_ms=percentile(
                [overshoot for share in shares for overshoot in share.overshoots_s], 99
            )
            * 1000,
            errors=_sum(process.errors for process in processes),
            books=Books(
                sum(one.warm_up.acknowledged + one.measured.acknowledged for one in shares), found
            ),
            settings={share.door: share.settings for share in shares},
            processes=processes,
        )


def _sum(errors: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(one) for one in errors), Counter()))


@dataclass(frozen=True, slots=True)
class ProcessesSummary:
    """One contender over all rounds. A ratio is the median over the rounds."""

    contender: str
    throughput: Spread
    throughput_ratio: float
    p50_ms: Spread
    p99_ms: Spread
    p99_ratio: float
    max_ms: Spread
    evenness: Spread
    loop_lag_p99_ms: Spread
    errors: dict[str, int]
    most_errors: int
    """The largest number in a run."""

    @classmethod
    def of(cls, runs: Sequence[ProcessesRun], stock: Sequence[ProcessesRun]) -> ProcessesSummary:
        """Return the summary; ``runs`` and ``stock`` are one contender's each, ordered by round."""
        return cls(
            contender=runs[0].contender,
            throughput=Spread.of([run.throughput for run in runs]),
            throughput_ratio=_ratio(runs, stock, lambda run: run.throughput),
            p50_ms=Spread.of([run.p50_ms for run in runs]),
            p99_ms=Spread.of([run.p99_ms for run in runs]),
            p99_ratio=_ratio(runs, stock, lambda run: run.p99_ms),
            max_ms=Spread.of([run.max_ms for run in runs]),
            evenness=Spread.of([run.evenness for run in runs]),
            loop_lag_p99_ms=Spread.of([run.loop_lag_p99_ms for run in runs]),
            errors=_sum(run.errors for run in runs),
            most_errors=max(sum(run.errors.values()) for run in runs),
        )


def _ratio(
    runs: Sequence[ProcessesRun],
    stock: Sequence[ProcessesRun],
    figure: Callable[[ProcessesRun], float],
) -> float:
    pairs = zip(runs, stock, strict=True)
    return statistics.median(figure(run) / (figure(base) or 1) for run, base in pairs)


def asked_alone(one: ProcessesSummary) -> list[Asked]:
    """Return the targets for processes that all use this package. The worst round counts."""
    name = one.contender
    return [
        at_most(f"{name}: p99 of a transaction, ms", 110, [one.p99_ms.most]),
        at_most(f"{name}: p99, share of stock's", 0.1, [one.p99_ratio]),
        at_least(f"{name}: least/most transactions of a process", 0.9, [one.evenness.least]),
        at_least(f"{name}: throughput, for one of stock's", 1, [one.throughput_ratio]),
        at_most(f"{name}: errors", 0, [one.most_errors]),
    ]


def asked_with_outsider(one: ProcessesSummary) -> list[Asked]:
    """Return the targets if one process uses a stock engine; its errors count, too."""
    name = one.contender
    return [
        at_least(f"{name}: least/most transactions of a process", 0.5, [one.evenness.least]),
        at_most(f"{name}: errors", 0, [one.most_errors]),
    ]


@dataclass(frozen=True, slots=True)
class ProcessesReport:
    """All results of a run of ``python -m benchmarks.processes``."""

    environment: Environment
    rounds: int
    processes: int
    tasks: int
    hold_ms: float
    seconds: float
    summaries: list[ProcessesSummary]
    asked: list[Asked]
    runs: list[ProcessesRun]

    @property
    def books_balance(self) -> bool:
        return all(run.books.balance for run in self.runs)
