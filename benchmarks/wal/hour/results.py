"""Figures of an hour."""

from __future__ import annotations

from dataclasses import dataclass

from ...measuring.clocks import percentile
from ...measuring.environment import Environment
from ..log_size import MIB
from .hour import Hour


@dataclass(frozen=True, slots=True)
class HourRun:
    """The figures of one contender. Waits are those of readers for the first result."""

    contender: str
    largest_log_mib: float
    log_at_the_end_mib: float
    writes: int
    write_p99_ms: float
    imports: int
    reads: int
    wait_p99_ms: float
    wait_max_ms: float
    errors: dict[str, int]

    @classmethod
    def of(cls, contender: str, hour: Hour) -> HourRun:
        """Return the figures of ``hour``."""
        sizes = [size / MIB for _, size in hour.sizes]
        return cls(
            contender=contender,
            largest_log_mib=max(sizes),
            log_at_the_end_mib=sizes[-1],
            writes=hour.writes.acknowledged,
            write_p99_ms=percentile(hour.writes.latencies_s, 99) * 1000,
            imports=hour.imports.acknowledged,
            reads=hour.reads.acknowledged + hour.held_reads.acknowledged,
            wait_p99_ms=percentile(hour.waits_s, 99) * 1000,
            wait_max_ms=max(hour.waits_s) * 1000,
            errors=dict(hour.errors),
        )


@dataclass(frozen=True, slots=True)
class HourReport:
    """All results of a run. ``logged`` contains the package's log messages."""

    environment: Environment
    compress: float
    runs: list[HourRun]
    logged: list[str]
