"""The history of one database: its current state, and its rates in the last minutes."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ...errors import DatabaseClosedError
from ...reporting.events import StatisticsFailed, log
from ...stats.database import DatabaseStatistics
from ...stats.lines import Waits

TakesStatistics = Callable[[], DatabaseStatistics]
Point = list[float | None]

# Five minutes, at one point per second.
POINTS: Final = 300
# How many statements are shown by longest run, and how many by total time.
SLOWEST: Final = 15

COLUMNS: Final = (
    "at",
    "inline",
    "in_thread",
    "reads",
    "commits",
    "rollbacks",
    "turn_waits",
    "turn_wait_ms",
    "connection_waits",
    "connection_wait_ms",
    "in_line",
    "wal_bytes",
)
"""The numbers of a point: time, rates per second, and mean durations of waits that have ended."""


class History:
    """The samples of one database: the last ``POINTS`` points of rates, and the latest state."""

    def __init__(self, name: str, source: TakesStatistics) -> None:
        self._name, self._source = name, source
        self._points: deque[Point] = deque(maxlen=POINTS)
        self._earlier: DatabaseStatistics | None = None
        self._latest: Point | None = None
        self._shown: dict[str, Any] = {}
        self._problem: str | None = None

    def clear(self) -> None:
        """Discard all samples."""
        self._points.clear()
        self._earlier = self._latest = None

    def sample(self, at: float) -> None:
        """Take a sample at the time ``at``. If that fails, the error is shown instead."""
        self._latest = None
        try:
            now = self._source()
        except DatabaseClosedError as error:
            self._fail(str(error))
        except Exception as error:
            if self._problem is None:
                # The only database of a page has no name there; use its file name if it is known.
                name = self._name or self._shown.get("name", "the database")
                event = StatisticsFailed(database=name, error=repr(error))
                log(event, "no statistics of %s", name, error=error)
            self._fail(f"{type(error).__name__}: {error}")
        else:
            self._take(at, now)

    def _fail(self, problem: str) -> None:
        self._problem, self._earlier, self._shown = problem, None, {}

    def _take(self, at: float, now: DatabaseStatistics) -> None:
        light = _without_texts(now)
        self._problem, self._shown = None, light.as_dict() | {"slowest": _slowest(now)}
        if self._earlier is not None and light.seconds > self._earlier.seconds:
            self._latest = _point(at, light - self._earlier)
            self._points.append(self._latest)
        self._earlier = light

    def as_dict(self, *, whole: bool) -> dict[str, Any]:
        """Return the state and the points: all points, or only the latest."""
        latest = [] if self._latest is None else [self._latest]
        return {
            "name": self._name,
            "problem": self._problem,
            "now": self._shown,
            "points": list(self._points) if whole else latest,
        }


def _without_texts(now: DatabaseStatistics) -> DatabaseStatistics:
    """Return it without the SQL texts: most of a difference's cost, and no rate needs them."""
    engines = tuple(
        replace(engine, statements=replace(engine.statements, slowest=())) for engine in now.engines
    )
    return replace(now, engines=engines)


def _point(at: float, done: DatabaseStatistics) -> Point:
    per_second = 1 / done.seconds
    statements = [engine.statements for engine in done.engines]
    transactions = [engine.transactions for engine in done.engines]
    # A writer's line is the turn's.
    connections = [engine.waits for engine in done.engines if engine.role != "writer"]
    return [
        round(at, 1),
        _rate(per_second * sum(one.inline for one in statements)),
        _rate(per_second * sum(one.in_thread for one in statements)),
        _rate(per_second * sum(one.reads for one in transactions)),
        _rate(per_second * sum(one.commits for one in transactions)),
        _rate(per_second * sum(one.rollbacks for one in transactions)),
        _rate(per_second * done.turn.waits.waited),
        _mean_ms([done.turn.waits]),
        _rate(per_second * sum(waits.waited for waits in connections)),
        _mean_ms(connections),
        done.turn.waiting,
        None if done.wal is None else done.wal.size,
    ]


def _rate(rate: float) -> float:
    return round(rate, 2)


def _mean_ms(waits: list[Waits]) -> float:
    """Return the mean duration of actual waits, in milliseconds; immediate grants do not count."""
    waited = sum(one.waited for one in waits)
    return round(1000 * sum(one.seconds for one in waits) / waited, 3) if waited else 0.0


def _slowest(now: DatabaseStatistics) -> list[dict[str, Any]]:
    """Return the slowest statements of all engines as one list."""
    found = [(text, engine.role) for engine in now.engines for text in engine.statements.slowest]
    chosen = heapq.nlargest(SLOWEST, found, key=lambda one: one[0].longest_seconds)
    chosen += heapq.nlargest(SLOWEST, found, key=lambda one: one[0].seconds)
    return [text.as_dict() | {"role": role} for text, role in dict.fromkeys(chosen)]
