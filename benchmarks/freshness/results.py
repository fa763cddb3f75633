"""What is measured, and what is asked of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ..report.asked import Asked, at_most


@dataclass(frozen=True, slots=True)
class Environment:
    """What figures mean nothing without."""

    postgresql: str
    python: str
    sqlalchemy: str
    asyncpg: str
    psycopg: str
    cpus: int
    load_average: float

    @classmethod
    def of(cls, postgresql: str) -> Environment:
        """The environment of this process, and servers of that version."""
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
    """Reads, each right after a write of the same client.

    A stale one shows a value of before. ``by_replicas`` were served by a replica, the others by the
    primary. Times are from asking for the session to having it given back.
    """

    count: int
    stale: int
    by_replicas: int
    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, times_s: Sequence[float], *, stale: int, by_replicas: int) -> Reads:
        """Summarise."""
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
    """The median of an operation without ``fresh()`` and with it, one client alone, no lag."""

    driver: str
    operation: str
    without_us: float
    with_us: float


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

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
    """No stale read at any lag."""
    return [
        at_most(
            f"stale reads with tokens, {run.driver}, {run.lag_ms:,} ms", 0, [run.with_tokens.stale]
        )
        for run in runs
    ]
