"""Figures of steady writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...measuring.environment import Environment
from ...report.results import Run, Spread, Summary
from ...ways.contenders import Measurement
from ..log_size import MIB
from . import rows
from .latency import Entrant


@dataclass(frozen=True, slots=True)
class LatencyRun:
    """One contender in one round.

    ``checkpoints`` counts those that ended while it wrote, if the package counts them: SQLite's
    own, within a COMMIT, are not reported.
    """

    run: Run
    checkpoints: int
    largest_log_mib: float

    @classmethod
    def of(cls, entrant: Entrant, round_: int, place: int) -> LatencyRun:
        """Return the figures of ``entrant``, whose file must be closed."""
        measurement = Measurement(
            entrant.settings, entrant.seconds, entrant.warm_up, entrant.measured, None
        )
        found = rows.transactions(entrant.database)
        run = Run.of(entrant.name, round_, place, measurement, found)
        return cls(run, entrant.checkpoints, entrant.largest_log / MIB)


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """One contender over all rounds. Ratios compare with a run without checkpoints."""

    summary: Summary
    checkpoints: Spread
    largest_log_mib: Spread

    @classmethod
    def of(cls, runs: Sequence[LatencyRun], baseline: Sequence[LatencyRun]) -> LatencySummary:
        """Return the summary; ``runs``, ``baseline`` are one contender's each, ordered by round."""
        return cls(
            summary=Summary.of([one.run for one in runs], [one.run for one in baseline]),
            checkpoints=Spread.of([one.checkpoints for one in runs]),
            largest_log_mib=Spread.of([one.largest_log_mib for one in runs]),
        )


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """All contenders under one load."""

    load: str
    title: str
    summaries: list[LatencySummary]
    runs: list[LatencyRun]


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """All results of a run of ``python -m benchmarks.checkpoint_latency``."""

    environment: Environment
    rounds: int
    seconds: float
    loads: list[LatencyResult]

    @property
    def books_balance(self) -> bool:
        return not any(one.summary.unbalanced_runs for load in self.loads for one in load.summaries)
