"""The figures of the live page, from hand-made snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sa_sqlite_pool import DatabaseClosedError
from sa_sqlite_pool.integrations.live.history import COLUMNS, POINTS, SLOWEST, History
from sa_sqlite_pool.stats.database import DatabaseStatistics
from sa_sqlite_pool.stats.engines import (
    EngineStatistics,
    StatementsStatistics,
    TextStatistics,
    TransactionsStatistics,
)
from sa_sqlite_pool.stats.lines import TurnStatistics, Waits


def snapshot(seconds: float, count: int = 0, texts: int = 0) -> DatabaseStatistics:
    """Return a snapshot with ``count`` of everything, for two engines."""
    slowest = tuple(
        TextStatistics(sql=f"SELECT {n}", runs=n, seconds=1.0 * n, longest_seconds=1 / (n + 1))
        for n in range(texts)
    )
    engine = {
        "statements": StatementsStatistics(inline=3 * count, in_thread=count, slowest=slowest),
        "transactions": TransactionsStatistics(reads=2 * count, commits=count),
        "waits": Waits(waited=count, seconds=0.004 * count),
    }
    return DatabaseStatistics(
        name="app.db",
        seconds=seconds,
        turn=TurnStatistics(waiting=2, waits=Waits(waited=count, seconds=0.25 * count)),
        engines=tuple(EngineStatistics(role=role, **engine) for role in ("reader", "writer")),  # type: ignore[arg-type]
    )


def of(*snapshots: Any, name: str = "app") -> History:
    """Return a history of these samples; an exception in the place of a sample is raised."""
    coming: Iterator[Any] = iter(snapshots)

    def source() -> DatabaseStatistics:
        found = next(coming)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    made = History(name, source)
    for at in range(len(snapshots)):
        made.sample(1000.0 + at)
    return made


def points(made: History, *, whole: bool = True) -> list[dict[str, Any]]:
    found = made.as_dict(whole=whole)["points"]
    return [dict(zip(COLUMNS, point, strict=True)) for point in found]


def test_a_point_has_rates_of_all_engines_and_means() -> None:
    """For an interval of 1.5 s: rates per second, and milliseconds of the waits that ended.

    A writer's line is that of the turn, and is not counted twice.
    """
    (point,) = points(of(snapshot(10.0), snapshot(11.5, 30)))
    assert point == {
        "at": 1001.0,
        "inline": 120.0,
        "in_thread": 40.0,
        "reads": 80.0,
        "commits": 40.0,
        "rollbacks": 0.0,
        "turn_waits": 20.0,
        "turn_wait_ms": 250.0,
        "connection_waits": 20.0,
        "connection_wait_ms": 4.0,
        "in_line": 2,
        "wal_bytes": None,
    }


def test_no_waits_have_no_mean() -> None:
    """It is zero, and no division by zero occurs."""
    (point,) = points(of(snapshot(10.0), snapshot(11.0)))
    assert (point["turn_wait_ms"], point["connection_wait_ms"]) == (0.0, 0.0)


def test_the_first_sample_has_no_rate() -> None:
    """There is no earlier sample to compare it with, but its state is shown."""
    made = of(snapshot(10.0, 5))
    assert points(made) == []
    assert made.as_dict(whole=True)["now"]["name"] == "app.db"


@pytest.mark.parametrize("seconds", [10.0, 0.5])
def test_counters_that_began_anew_have_no_rate(seconds: float) -> None:
    """An engine was replaced, or two samples were taken at the same instant."""
    assert points(of(snapshot(10.0, 50), snapshot(seconds, 3))) == []
    assert len(points(of(snapshot(10.0, 50), snapshot(seconds, 3), snapshot(seconds + 1, 4)))) == 1


def test_a_gap_has_no_rate() -> None:
    """While it is closed, there are no points; the first sample afterwards has no predecessor."""
    made = of(snapshot(10.0), snapshot(11.0), DatabaseClosedError("app.db was closed"))
    assert made.as_dict(whole=False) == {
        "name": "app",
        "problem": "app.db was closed",
        "now": {},
        "points": [],
    }
    assert len(points(made)) == 1
    closed = DatabaseClosedError("app.db was closed")
    again = of(snapshot(10.0), closed, snapshot(12.0), snapshot(13.0))
    assert [point["at"] for point in points(again)] == [1003.0]


def test_it_is_bounded() -> None:
    """It covers five minutes, and a step contains only the latest point."""
    made = of(*(snapshot(1.0 + number) for number in range(POINTS + 50)))
    assert len(points(made)) == POINTS
    assert points(made, whole=False) == points(made)[-1:]
    made.clear()
    assert points(made) == []


def test_the_slowest_by_either_measure() -> None:
    """The measures are the longest run and the total; each entry occurs once, with its engine."""
    made = of(snapshot(1.0, 1, texts=50))
    slowest = made.as_dict(whole=True)["now"]["slowest"]
    assert len(slowest) == 2 * SLOWEST
    found = {(one["role"], one["sql"]) for one in slowest}
    assert len(found) == len(slowest)
    assert {("reader", "SELECT 0"), ("writer", "SELECT 49")} <= found


def test_it_is_json() -> None:
    """The whole history is one line."""
    made = of(snapshot(1.0), snapshot(2.0, 1, texts=3))
    assert "\n" not in json.dumps(made.as_dict(whole=True), allow_nan=False)


def test_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is not logged each second, but again if a sample has succeeded in between."""
    broken = OSError("no such disk")
    of(broken, broken, snapshot(1.0), broken)
    assert [record.message for record in caplog.records] == ["no statistics of app"] * 2
    assert {record.name for record in caplog.records} == {"sa_sqlite_pool"}


def test_the_only_database_of_a_page_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The file names it, as soon as that is known, because the page has no name for it."""
    broken = OSError("no such disk")
    of(broken, snapshot(1.0), broken, name="")
    found = [(vars(record)["database"], record.message) for record in caplog.records]
    assert found == [
        ("the database", "no statistics of the database"),
        ("app.db", "no statistics of app.db"),
    ]
