"""Snapshots of counters: their difference, and their form in JSON."""

from __future__ import annotations

import json

import pytest

from sa_sqlite_pool import (
    DatabaseStatistics,
    EngineStatistics,
    Holder,
    StatementsStatistics,
    TextStatistics,
    TurnStatistics,
    Waits,
)


def snapshot(number: int, *texts: str) -> DatabaseStatistics:
    return DatabaseStatistics(
        name="app.db",
        seconds=10.0 * number,
        turn=TurnStatistics(
            holder=Holder(task="task 'a'", seconds=1.0),
            waiting=number,
            waits=Waits(waited=number, longest_seconds=number, histogram=(number, *(0,) * 9)),
        ),
        engines=(
            EngineStatistics(
                role="reader",
                statements=StatementsStatistics(
                    inline=5 * number,
                    slowest=tuple(TextStatistics(sql=sql, runs=number) for sql in texts),
                ),
            ),
        ),
    )


def test_counters_are_subtracted_and_states_are_not() -> None:
    """Nested snapshots are subtracted, too, and histograms element by element."""
    between = snapshot(3) - snapshot(1)
    assert between.seconds == 20.0
    assert between.turn.waits == Waits(
        waited=2, longest_seconds=3, histogram=(2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    )
    assert (between.turn.waiting, between.turn.holder) == (3, snapshot(3).turn.holder)
    assert between.engine("reader").statements.inline == 10


def test_rows_are_matched_by_what_they_are() -> None:
    """A text of both snapshots is subtracted, at any position; a new one counts from 0."""
    between = snapshot(3, "new", "old") - snapshot(1, "old", "gone")
    slowest = between.engine("reader").statements.slowest
    assert [(one.sql, one.runs) for one in slowest] == [("new", 3), ("old", 2)]


def test_a_row_that_was_forgotten_counts_anew() -> None:
    """A text that left the slowest for a while and returned counts anew: nothing is negative."""
    between = snapshot(1, "SELECT 1") - snapshot(3, "SELECT 1")
    assert [one.runs for one in between.engine("reader").statements.slowest] == [1]


def test_other_things_cannot_be_subtracted() -> None:
    """Python itself raises the error."""
    with pytest.raises(TypeError, match="unsupported operand"):
        snapshot(1) - Waits()  # type: ignore[operator]


def test_json_has_all_of_it() -> None:
    """The result consists of dictionaries, lists, strings and numbers only."""
    found = json.loads(json.dumps(snapshot(2, "SELECT 1").as_dict()))
    assert found["turn"]["holder"]["task"] == "task 'a'"
    assert found["engines"][0]["statements"]["slowest"] == [
        {"sql": "SELECT 1", "runs": 2, "seconds": 0.0, "longest_seconds": 0.0}
    ]


def test_an_engine_that_is_not_there() -> None:
    """A lookup by an unknown role raises KeyError."""
    with pytest.raises(KeyError, match="writer"):
        snapshot(1).engine("writer")
