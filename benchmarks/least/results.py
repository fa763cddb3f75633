"""Figures of the least, compared to this package's targets and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ..measuring.cores import Cores, named
from ..measuring.environment import Environment
from ..report.output import table
from ..report.results import LoadResult
from ..report.tables import show_ratio
from ..ways.contenders import SYNCHRONOUS
from .kinds import KINDS, Kind


@dataclass(frozen=True, slots=True)
class Figure:
    """Process time of an operation as a multiple of synchronous's in the same round: medians."""

    kind: str
    load: str
    asked: float | None
    least: float | None
    ours: float | None


@dataclass(frozen=True, slots=True)
class LeastReport:
    """All results of a run of ``python -m benchmarks.least``."""

    environment: Environment
    rounds: int
    figures: list[Figure]
    loads: list[LoadResult]

    @property
    def right(self) -> bool:
        """Whether every read returned its rows, and every write is in the file."""
        summaries = [one for load in self.loads for one in load.summaries]
        return not any(one.unbalanced_runs or one.errors for one in summaries)


def figures(results: Sequence[LoadResult]) -> list[Figure]:
    """Return one figure for each kind."""
    by_name = {result.load: result for result in results}
    return [_figure(kind, by_name[kind.load]) for kind in KINDS]


def _figure(kind: Kind, result: LoadResult) -> Figure:
    least, ours = (_ratio(result, name) for name in (kind.least, kind.ours))
    return Figure(kind.name, kind.load, kind.asked, least, ours)


def _ratio(result: LoadResult, contender: str) -> float | None:
    summary = result.summary(contender)
    assert summary is not None
    return summary.process_ratio


def table_of(report: LeastReport, cores: Cores) -> Table:
    """Return a table with one line for each kind."""
    made = table(
        f"process time on {named(cores)}, for one of {SYNCHRONOUS}'s",
        "kind",
        *("asked", "least", "ours"),
    )
    for one in report.figures:
        made.add_row(one.kind, *map(show_ratio, (one.asked, one.least, one.ours)))
    return made
