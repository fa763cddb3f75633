"""Results of loads with figures chosen by a test."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.report.results import LoadResult, Run, Summary
from benchmarks.ways.settings import Settings

ROUNDS = 3
SETTINGS = Settings("pool", 1, 0, {}, "3.40.1")

Figures = Mapping[str, float]
"""The fields of one :class:`Run` that are not 1."""


def result(load: str, contenders: Mapping[str, Figures], cores: int | None = None) -> LoadResult:
    """Return a load in which each contender has the same figures in each round."""
    runs = {
        name: [run(name, number, found) for number in range(ROUNDS)]
        for name, found in contenders.items()
    }
    stock, synchronous = runs.get("stock", next(iter(runs.values()))), runs.get("synchronous")
    return LoadResult(
        load=load,
        title="",
        unit="",
        tasks=1,
        seconds=1.0,
        point=None,
        baseline="stock",
        summaries=[Summary.of(found, stock, synchronous) for found in runs.values()],
        runs=[one for found in runs.values() for one in found],
        cores=cores,
    )


def run(contender: str, round_: int, figures: Figures) -> Run:
    """Return a run; rounds differ by a factor that all contenders share, like machine load."""
    mood = 1.0 + round_
    names = ("throughput", "p50_ms", "p99_ms", "loop_lag_p99_ms", "process_us", "cores_used")
    moody = {name: figures.get(name, 1.0) * mood for name in names}
    return Run(
        contender=contender,
        round=round_,
        place=0,
        settings=SETTINGS,
        seconds=1.0,
        acknowledged=1,
        max_ms=1.0,
        errors={},
        books=None,
        **moody,
    )
