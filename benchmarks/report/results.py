"""Figures of runs, and their summaries over several rounds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..measuring.clocks import percentile
from ..measuring.environment import Environment
from ..ways.contenders import Measurement
from ..ways.settings import Settings
from .asked import Asked


@dataclass(frozen=True, slots=True)
class Books:
    """The number of acknowledged operations, including the warm-up, and of those in the file."""

    acknowledged: int
    found: int

    @property
    def balance(self) -> bool:
        return self.acknowledged == self.found


@dataclass(frozen=True, slots=True)
class Run:
    """One contender in one round. ``place`` is its position in the round, from 0.

    ``acknowledged`` includes operations that ended after the time was up, ``throughput`` does not.
    ``process_us`` is the processor time of the whole process per operation, counting operations of
    the load's other parts, too, and ``cores_used`` the processor time over the elapsed time.
    """

    contender: str
    round: int
    place: int
    settings: Settings
    seconds: float
    acknowledged: int
    throughput: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    loop_lag_p99_ms: float | None
    errors: dict[str, int]
    books: Books | None
    process_us: float | None = None
    cores_used: float | None = None

    @classmethod
    def of(
        cls, contender: str, round_: int, place: int, measurement: Measurement, found: int | None
    ) -> Run:
        """Return the figures of ``measurement``; ``found`` is the number of effects in the file."""
        tally, warm_up = measurement.measured, measurement.warm_up
        overshoots_s = measurement.overshoots_s
        usage = measurement.usage
        in_time = tally.acknowledged if measurement.in_time is None else measurement.in_time
        return cls(
            contender=contender,
            round=round_,
            place=place,
            settings=measurement.settings,
            seconds=measurement.seconds,
            acknowledged=tally.acknowledged,
            throughput=in_time / measurement.seconds,
            p50_ms=percentile(tally.latencies_s, 50) * 1000,
            p99_ms=percentile(tally.latencies_s, 99) * 1000,
            max_ms=max(tally.latencies_s) * 1000,
            loop_lag_p99_ms=percentile(overshoots_s, 99) * 1000 if overshoots_s else None,
            errors=dict(tally.errors + warm_up.errors),
            books=None
            if found is None
            else Books(warm_up.acknowledged + tally.acknowledged, found),
            process_us=None if usage is None else usage.process_s / usage.operations * 1e6,
            cores_used=None if usage is None else usage.process_s / usage.elapsed_s,
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender over all rounds.

    A ratio compares with the baseline's run of the same round, when the machine was in the same
    state, and is the median over the rounds; None if the baseline has no figure.
    ``synchronous_ratio`` is the ratio of throughput to synchronous SQLAlchemy's, ``process_ratio``
    the ratio of process time per operation.
    """

    contender: str
    throughput: Spread
    throughput_ratio: float | None
    synchronous_ratio: float | None
    process_us: Spread | None
    process_ratio: float | None
    cores_used: Spread | None
    p50_ms: Spread
    p50_ratio: float | None
    p99_ms: Spread
    p99_ratio: float | None
    max_ms: Spread
    loop_lag_p99_ms: Spread | None
    loop_lag_ratio: float | None
    errors: dict[str, int]
    unbalanced_runs: int
    may_lose: bool
    """Whether its books need not balance, since the difference is a result."""
    lost: Spread | None
    """Acknowledged operations that are missing from the file, per run."""
    settings: list[Settings]
    """All settings that were seen: one, unless something is wrong."""

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        baseline: Sequence[Run],
        synchronous: Sequence[Run] | None = None,
        *,
        may_lose: bool = False,
    ) -> Summary:
        """Return the summary; all runs are each of one contender, ordered by round."""
        books = [run.books for run in runs if run.books is not None]
        return cls(
            contender=runs[0].contender,
            throughput=Spread.of([run.throughput for run in runs]),
            throughput_ratio=ratio(runs, baseline, lambda run: run.throughput),
            synchronous_ratio=None
            if synchronous is None
            else ratio(runs, synchronous, lambda run: run.throughput),
            process_us=_spread(run.process_us for run in runs),
            process_ratio=None
            if synchronous is None
            else ratio(runs, synchronous, lambda run: run.process_us or 0.0),
            cores_used=_spread(run.cores_used for run in runs),
            p50_ms=Spread.of([run.p50_ms for run in runs]),
            p50_ratio=ratio(runs, baseline, lambda run: run.p50_ms),
            p99_ms=Spread.of([run.p99_ms for run in runs]),
            p99_ratio=ratio(runs, baseline, lambda run: run.p99_ms),
            max_ms=Spread.of([run.max_ms for run in runs]),
            loop_lag_p99_ms=_spread(run.loop_lag_p99_ms for run in runs),
            loop_lag_ratio=None
            if all(run.loop_lag_p99_ms is None for run in runs)
            else ratio(runs, baseline, lambda run: run.loop_lag_p99_ms or 0.0),
            errors=dict(sum((Counter(run.errors) for run in runs), Counter())),
            unbalanced_runs=sum(not one.balance for one in books),
            may_lose=may_lose,
            lost=Spread.of([one.acknowledged - one.found for one in books]) if books else None,
            settings=_distinct([run.settings for run in runs]),
        )


def ratio(
    runs: Sequence[Run], baseline: Sequence[Run], figure: Callable[[Run], float]
) -> float | None:
    """Return the median over the rounds; None if the baseline has no figure in any of them."""
    pairs = [(figure(run), figure(base)) for run, base in zip(runs, baseline, strict=True)]
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    return statistics.median(ratios) if ratios else None


def _spread(figures: Iterable[float | None]) -> Spread | None:
    """Return the spread; None if no run has the figure."""
    known = [one for one in figures if one is not None]
    return Spread.of(known) if known else None


def _distinct(settings: Sequence[Settings]) -> list[Settings]:
    return [one for index, one in enumerate(settings) if one not in settings[:index]]


@dataclass(frozen=True, slots=True)
class Point:
    """The place of a load in a series, whose loads differ in one number: ``x``, of ``of``."""

    series: str
    of: str
    x: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """All contenders of one part of one load, on a number of ``cores`` (None: all).

    Ratios refer to the contender ``baseline``. ``a_second`` is the rate of requests in an open
    loop.
    """

    load: str
    title: str
    unit: str
    tasks: int
    seconds: float
    point: Point | None
    baseline: str
    summaries: list[Summary]
    runs: list[Run]
    cores: int | None = None
    a_second: float | None = None

    def runs_of(self, contender: str) -> list[Run]:
        """Return the runs, ordered by round."""
        return [run for run in self.runs if run.contender == contender]

    def summary(self, contender: str) -> Summary | None:
        """Return the summary of ``contender``; None if it did not take part."""
        return next((one for one in self.summaries if one.contender == contender), None)


@dataclass(frozen=True, slots=True)
class Report:
    """All results of a run of ``python -m benchmarks``."""

    environment: Environment
    rounds: int
    quick: bool
    scale: float
    loads: list[LoadResult]
    asked: list[Asked]

    @property
    def books_balance(self) -> bool:
        summaries = (one for load in self.loads for one in load.summaries)
        return not any(one.unbalanced_runs and not one.may_lose for one in summaries)
