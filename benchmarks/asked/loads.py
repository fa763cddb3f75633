"""The targets of this package under the loads of ``python -m benchmarks``.

Each is a ratio between runs of the same round, and the median over the rounds counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..loads.scaling import FEW, MANY, TURNS
from ..loads.social import POOL_OF_100
from ..measuring.cores import Cores
from ..report.asked import Asked, at_least, at_most
from ..report.results import LoadResult, Run, Summary, ratio
from ..ways.catalogue import ENGINES, FACADE, READER, RUN_WRITE, RUN_WRITE_CORE, SWAP_IN, WRITER

Loads = dict[str, LoadResult]
Ratio = Callable[[Summary], float | None]


def asked_of_loads(results: Sequence[LoadResult]) -> list[Asked]:
    """Return the targets for the loads that ran, on all cores."""
    loads = with_cores(results, None)
    return [*_of_reads(loads), *_of_writes(loads), *_of_mixed(loads), *_of_others(loads)]


def with_cores(results: Sequence[LoadResult], cores: Cores) -> Loads:
    """Return the loads that ran on that number of cores, by name."""
    return {result.load: result for result in results if result.cores == cores}


def _to_stock(summary: Summary) -> float | None:
    return summary.throughput_ratio


def _to_synchronous(summary: Summary) -> float | None:
    return summary.synchronous_ratio


def _p99(summary: Summary) -> float | None:
    return summary.p99_ratio


def _p50(summary: Summary) -> float | None:
    return summary.p50_ratio


def _lag(summary: Summary) -> float | None:
    return summary.loop_lag_ratio


def _of_reads(loads: Loads) -> Iterator[Asked]:
    for engine in (ENGINES, READER):
        yield from least(loads, "point-reads", engine, "for one of stock's", _to_stock, 5)
        yield from least(loads, "point-reads", engine, "of synchronous", _to_synchronous, 0.35)
    yield from least(loads, "point-reads", SWAP_IN, "for one of stock's", _to_stock, 4)
    for door in (READER, SWAP_IN, FACADE):
        yield from least(loads, "orm-get", door, "for one of stock's", _to_stock, 3)


def _of_writes(loads: Loads) -> Iterator[Asked]:
    normal, full, sessions = "one-row-writes", "one-row-writes-full", "session-writes"
    for engine in (ENGINES, WRITER):
        yield from least(loads, normal, engine, "for one of stock's", _to_stock, 5)
        yield from most(loads, normal, engine, "p99, share of stock's", _p99, 0.1)
    yield from least(loads, normal, SWAP_IN, "for one of stock's", _to_stock, 4)
    # Closures with a Session compared to Core, and each compared to its own kind.
    like = ((normal, RUN_WRITE), (normal, RUN_WRITE_CORE), (sessions, RUN_WRITE))
    for load, closures in like:
        yield from least(loads, load, closures, "for one of stock's", _to_stock, 10)
        yield from least(loads, load, closures, "of synchronous", _to_synchronous, 0.5)
    for closures in (RUN_WRITE, RUN_WRITE_CORE):
        yield from least(loads, full, closures, "of synchronous", _to_synchronous, 2)


def _of_mixed(loads: Loads) -> Iterator[Asked]:
    for door in (ENGINES, FACADE):
        yield from least(loads, "mixed: reads", door, "for one of stock's", _to_stock, 4)
        yield from least(loads, "mixed: writes", door, "for one of stock's", _to_stock, 8)
        yield from most(loads, "mixed: scans", door, "p50, share of stock's", _p50, 1)
        yield from most(loads, "mixed: reads", door, "loop lag p99, share of stock's", _lag, 1)


def _of_others(loads: Loads) -> Iterator[Asked]:
    for name in ("social", "social-counts"):
        for door in (ENGINES, SWAP_IN):
            found = _throughput(runs_of(loads, name, door), runs_of(loads, name, POOL_OF_100))
            yield from asked_if(at_least, f"{name}: {door}, for one of {POOL_OF_100}'s", 3, found)
    for door in (ENGINES, WRITER):
        what = f"{TURNS}: {door}, time of one with {MANY:,} tasks, for that with {FEW}"
        few, many = (runs_of(loads, f"{TURNS} {tasks}", door) for tasks in (FEW, MANY))
        yield from asked_if(at_most, what, 1.2, _throughput(few, many))


def runs_of(loads: Loads, load: str, contender: str) -> Sequence[Run]:
    """Return the runs; none if the load was not run, or did not have the contender."""
    return loads[load].runs_of(contender) if load in loads else []


def _throughput(runs: Sequence[Run], others: Sequence[Run]) -> float | None:
    return ratio(runs, others, lambda run: run.throughput) if runs and others else None


def least(
    loads: Loads, load: str, contender: str, what: str, figure: Ratio, limit: float
) -> Iterator[Asked]:
    """Require ``figure`` of ``contender`` to be at least ``limit``."""
    found = _figure(loads, load, contender, figure)
    yield from asked_if(at_least, f"{load}: {contender}, {what}", limit, found)


def most(
    loads: Loads, load: str, contender: str, what: str, figure: Ratio, limit: float
) -> Iterator[Asked]:
    """Require ``figure`` of ``contender`` to be at most ``limit``."""
    found = _figure(loads, load, contender, figure)
    yield from asked_if(at_most, f"{load}: {contender}, {what}", limit, found)


def _figure(loads: Loads, load: str, contender: str, figure: Ratio) -> float | None:
    """Return None if the load was not run, or did not have the contender."""
    summary = loads[load].summary(contender) if load in loads else None
    return None if summary is None else figure(summary)


def asked_if(
    judge: Callable[[str, float, Sequence[float]], Asked],
    what: str,
    limit: float,
    found: float | None,
) -> Iterator[Asked]:
    """Yield the judged target; nothing if nothing was measured."""
    if found is not None:
        yield judge(what, limit, [found])
