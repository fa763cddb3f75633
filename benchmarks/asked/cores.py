"""The targets of this package for processor time, and compared to `asyncio.to_thread`.

On one core and on all: threads cost more, the more cores compete for the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..loads.open_loop import OPEN_LOOP
from ..measuring.cores import Cores, named
from ..report.asked import Asked, at_least, at_most
from ..report.results import LoadResult, Run, Summary, ratio
from ..ways.catalogue import (
    DROP_IN,
    ENGINES,
    FACADE,
    IN_THREADS,
    PREPARED,
    RUN_READ,
    RUN_READ_CORE,
    RUN_WRITE,
    RUN_WRITE_CORE,
    SWAP_IN,
)
from ..ways.contenders import STOCK
from .loads import Loads, asked_if, most, runs_of, with_cores

PROCESS_TIME = {
    ("point-reads", ENGINES): 1.6,
    ("point-reads", DROP_IN): 1.9,
    ("point-reads", RUN_READ_CORE): 1.25,
    ("point-reads", PREPARED): 0.6,
    ("orm-get", FACADE): 1.4,
    ("orm-get", RUN_READ): 1.3,
    ("one-row-writes", ENGINES): 1.8,
    ("one-row-writes", DROP_IN): 2.3,
    ("one-row-writes", RUN_WRITE_CORE): 1.1,
    ("session-writes", RUN_WRITE): 1.2,
}
"""On one core, as a multiple of synchronous SQLAlchemy's, which does the same without asyncio."""

_BESIDE_THREADS = {
    ("point-reads", ENGINES): 1.0,
    ("point-reads", RUN_READ_CORE): 1.15,
    ("one-row-writes", RUN_WRITE_CORE): 1.15,
}
"""Throughput as a multiple of that of threads."""

_DOORS = (SWAP_IN, ENGINES, FACADE, "closures", "closures, Core")


def asked_of_cores(results: Sequence[LoadResult]) -> list[Asked]:
    """Return the targets for each load that ran, on each number of cores that it ran on."""
    return [
        *_of_process_time(with_cores(results, 1)),
        *(
            one
            for cores in (1, None)
            for loads in [with_cores(results, cores)]
            for one in (*_beside_threads(loads, cores), *_of_open_loop(loads, cores))
        ),
    ]


def _of_process_time(loads: Loads) -> Iterator[Asked]:
    what = f"on {named(1)}, process time for synchronous's"
    for (load, contender), limit in PROCESS_TIME.items():
        yield from most(loads, load, contender, what, _process_ratio, limit)


def _process_ratio(summary: Summary) -> float | None:
    return summary.process_ratio


def _beside_threads(loads: Loads, cores: Cores) -> Iterator[Asked]:
    for (load, contender), limit in _BESIDE_THREADS.items():
        what = f"{load}: {contender}, on {named(cores)}, for one of {IN_THREADS}'s"
        found = _compared(loads, load, contender, IN_THREADS, lambda run: run.throughput)
        yield from asked_if(at_least, what, limit, found)


def _of_open_loop(loads: Loads, cores: Cores) -> Iterator[Asked]:
    reads = f"{OPEN_LOOP}: reads"
    for door in _DOORS:
        begin = f"{reads}: {door}, on {named(cores)}"
        for other in (STOCK, IN_THREADS):
            for figure, of in _LATE.items():
                found = _compared(loads, reads, door, other, of)
                yield from asked_if(at_most, f"{begin}, {figure}, share of {other}'s", 1, found)
        found = _compared(loads, reads, door, STOCK, lambda run: run.process_us or 0.0)
        yield from asked_if(at_most, f"{begin}, process time, share of {STOCK}'s", 0.5, found)


_LATE: dict[str, Callable[[Run], float]] = {
    "p99": lambda run: run.p99_ms,
    "loop lag p99": lambda run: run.loop_lag_p99_ms or 0.0,
}


def _compared(
    loads: Loads, load: str, contender: str, other: str, figure: Callable[[Run], float]
) -> float | None:
    """Return None if the load was not run, or did not have both contenders."""
    runs, others = (runs_of(loads, load, name) for name in (contender, other))
    return ratio(runs, others, figure) if runs and others else None
