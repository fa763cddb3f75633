"""The measurements, and their targets."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ..report.asked import Asked, at_most


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment, without which figures have no meaning."""

    postgresql: str
    python: str
    sqlalchemy: str
    asyncpg: str
    psycopg: str
    cpus: int
    load_average: float

    @classmethod
    def of(cls, postgresql: str) -> Environment:
        """Return the environment of this process, with servers of that version."""
        return cls(
            postgresql=postgresql,
            python=platform.python_version(),
            sqlalchemy=version("sqlalchemy"),
            asyncpg=version("asyncpg"),
            psycopg=version("psycopg"),
            cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
            load_average=os.getloadavg()[0],
        )


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads, each right after a write by the same client.

    A stale read returns an earlier value. ``by_replicas`` were served by a replica, the others by
    the primary. Times are measured from requesting the session until it has been returned.
    """

    count: int
    stale: int
    by_replicas: int
    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, times_s: Sequence[float], *, stale: int, by_replicas: int) -> Reads:
        """Return the summary of ``times_s``."""
        ordered = sorted(times_s)
        p50, p95 = (1000 * ordered[int((len(ordered) - 1) * share)] for share in (0.50, 0.95))
        return cls(len(ordered), stale, by_replicas, p50, p95)


@dataclass(frozen=True, slots=True)
class PairsRun:
    """The same pairs with tokens and without, at one lag, through one driver."""

    lag_ms: int
    driver: str
    seconds: float
    with_tokens: Reads
    without: Reads


@dataclass(frozen=True, slots=True)
class Cost:
    """The median time of an operation without and with ``fresh()``: a single client, no lag."""

    driver: str
    operation: str
    without_us: float
    with_us: float


@dataclass(frozen=True, slots=True)
class Report:
    """All results."""

    environment: Environment
    tasks: int
    freshness_wait_ms: float
    runs: list[PairsRun]
    costs: list[Cost]
    asked: list[Asked]

    @property
    def is_fresh(self) -> bool:
        """Whether no read with a token was stale."""
        return all(one.kept for one in self.asked)


def asked_of(runs: Sequence[PairsRun]) -> list[Asked]:
    """Return the target: no stale read at any lag."""
    return [
        at_most(
            f"stale reads with tokens, {run.driver}, {run.lag_ms:,} ms", 0, [run.with_tokens.stale]
        )
        for run in runs
    ]
