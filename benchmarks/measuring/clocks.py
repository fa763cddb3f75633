"""Clocks and counts of one run."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter, process_time

import apsw
from aiosqlitepool.exceptions import PoolConnectionAcquireTimeoutError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

NAP_S = 0.001
"""The time for which the probe of the loop asks to sleep."""

_SHOWN_CHARACTERS = 100


class WrongAnswerError(Exception):
    """A statement succeeded, but its result does not match the file."""


_REFUSALS = (
    SQLAlchemyError,
    sqlite3.Error,
    apsw.Error,
    PoolConnectionAcquireTimeoutError,
    WrongAnswerError,
)


class Tally:
    """All operations of one run, with their durations and outcomes.

    The time of a failed operation counts like any other: an engine that gives up after 30 seconds
    must not look fast.
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
        """Move everything that ``other`` has counted so far to this tally."""
        self.acknowledged_at += other.acknowledged_at
        self.errors += other.errors
        self.latencies_s += other.latencies_s
        for counted in (other.acknowledged_at, other.errors, other.latencies_s):
            counted.clear()

    def operation(self, since: float | None = None) -> Timed:
        """Time the block; errors of the database are counted instead of raised.

        ``since`` is the time at which the block should have begun, if that is not now.
        """
        return Timed(self, since)


class Timed:
    """A timed block. A generator would take a noticeable part of the time of short blocks."""

    __slots__ = ("_started", "_tally")

    def __init__(self, tally: Tally, since: float | None) -> None:
        self._tally = tally
        self._started = perf_counter() if since is None else since

    def __enter__(self) -> None:
        """Do nothing: the clock is already running."""

    def __exit__(self, type_: object, error: BaseException | None, _traceback: object) -> bool:
        ended, tally = perf_counter(), self._tally
        tally.latencies_s.append(ended - self._started)
        if error is None:
            tally.acknowledged_at.append(ended)
            return False
        if not isinstance(error, _REFUSALS):
            return False
        tally.errors[_reason(error)] += 1
        return True


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that the whole process used during ``operations`` operations.

    :param process_s: processor time of all its threads
    :param elapsed_s: elapsed time
    """

    process_s: float
    elapsed_s: float
    operations: int


class Meter:
    """Reads both clocks when it is started, and again to return the usage."""

    __slots__ = ("_elapsed", "_process")

    def start(self) -> None:
        """Start, or restart."""
        self._elapsed, self._process = perf_counter(), process_time()

    def usage(self, tallies: Iterable[Tally]) -> Usage:
        """Return the usage since the start; ``tallies`` contain all operations since then."""
        process_s, elapsed_s = process_time() - self._process, perf_counter() - self._elapsed
        return Usage(process_s, elapsed_s, sum(len(one.latencies_s) for one in tallies))


def _reason(error: Exception) -> str:
    """Return one line that is equal for equal causes, without the SQL and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    first_line = (str(cause).splitlines() or [""])[0]
    return f"{type(cause).__name__}: {first_line}"[:_SHOWN_CHARACTERS]


@asynccontextmanager
async def loop_lag(nap_s: float = NAP_S) -> AsyncIterator[list[float]]:
    """Measure, during the block, how late a task wakes that sleeps for ``nap_s``, in seconds.

    Every other request of a server waits this much longer, whatever it does.
    """
    overshoots_s: list[float] = []
    probe = asyncio.create_task(_probe(overshoots_s, nap_s))
    await asyncio.sleep(0)  # let it fall asleep, or a block that never yields would go unnoticed
    try:
        yield overshoots_s
    finally:
        probe.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probe


async def _probe(overshoots_s: list[float], nap_s: float) -> None:
    while True:
        started = perf_counter()
        try:
            await asyncio.sleep(nap_s)
        finally:
            overshoot = perf_counter() - started - nap_s
            if overshoot > 0:  # otherwise, it was cancelled early
                overshoots_s.append(overshoot)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of ``values`` that at least ``percent`` % of them do not exceed.

    The result is always a measured value, never an interpolated one.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
