"""Clocks and counts of one run."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

import apsw
from aiosqlitepool.exceptions import PoolConnectionAcquireTimeoutError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

NAP_S = 0.001
"""How long the probe of the loop asks to sleep."""

_SHOWN_CHARACTERS = 100


class WrongAnswerError(Exception):
    """A statement succeeded and its result is not what the file holds."""


_REFUSALS = (
    SQLAlchemyError,
    sqlite3.Error,
    apsw.Error,
    PoolConnectionAcquireTimeoutError,
    WrongAnswerError,
)


class Tally:
    """Every operation of one run: how long it took, and how it ended.

    The time of a failed operation counts as that of any other: an engine that gives up after
    30 seconds must not look fast.
    """

    __slots__ = ("acknowledged_at", "errors", "latencies_s")

    def __init__(self) -> None:
        self.acknowledged_at: list[float] = []
        self.errors: Counter[str] = Counter()
        self.latencies_s: list[float] = []

    @property
    def acknowledged(self) -> int:
        return len(self.acknowledged_at)

    def take_over(self, other: Tally) -> None:
        """All that ``other`` has counted so far is counted here, and not there."""
        self.acknowledged_at += other.acknowledged_at
        self.errors += other.errors
        self.latencies_s += other.latencies_s
        for counted in (other.acknowledged_at, other.errors, other.latencies_s):
            counted.clear()

    @contextmanager
    def operation(self, since: float | None = None) -> Iterator[None]:
        """Time the block; what the database refuses is counted and not raised.

        ``since`` is when it should have begun, where that was not now.
        """
        started = perf_counter() if since is None else since
        try:
            yield
            self.acknowledged_at.append(perf_counter())
        except _REFUSALS as error:
            self.errors[_reason(error)] += 1
        finally:
            self.latencies_s.append(perf_counter() - started)


def _reason(error: Exception) -> str:
    """One line that is the same for the same cause, without the SQL and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    first_line = (str(cause).splitlines() or [""])[0]
    return f"{type(cause).__name__}: {first_line}"[:_SHOWN_CHARACTERS]


@asynccontextmanager
async def loop_lag() -> AsyncIterator[list[float]]:
    """How much later than asked a sleeping task wakes, in seconds, while the block runs.

    This is what every other request of a server waits in addition, whatever it does.
    """
    overshoots_s: list[float] = []
    probe = asyncio.create_task(_probe(overshoots_s))
    try:
        yield overshoots_s
    finally:
        probe.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probe


async def _probe(overshoots_s: list[float]) -> None:
    while True:
        started = perf_counter()
        await asyncio.sleep(NAP_S)
        overshoots_s.append(perf_counter() - started - NAP_S)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` % of them do not exceed.

    A value that was measured, never one between two of them.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
