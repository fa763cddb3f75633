"""The facts that are known about the statements of one connection, by their text."""

from __future__ import annotations

import pytest

from sa_sqlite_pool.sqlite.examination import Finding
from sa_sqlite_pool.sqlite.statements import LONGEST_REMEMBERED, Kind
from sa_sqlite_pool.stats.counts import ConnectionCounts, Runs
from sa_sqlite_pool.transactions import facts as module
from sa_sqlite_pool.transactions.facts import (
    SHORT_READS,
    SHORT_WRITES,
    FactsTable,
    StatementFacts,
)

TEMP = 1


@pytest.fixture
def facts() -> StatementFacts:
    return StatementFacts("SELECT 1", Runs())


def in_thread(facts: StatementFacts, *runs: bool) -> None:
    for short in runs:
        facts.ran_in_thread(short=short)


def runs_until_short(facts: StatementFacts) -> int:
    """Return how many short runs in the thread are needed until the statement counts as short."""
    runs = 0
    while facts.short < SHORT_READS:
        in_thread(facts, True)
        runs += 1
    return runs


def test_an_unknown_text_is_not_short(facts: StatementFacts) -> None:
    """A statement that was never timed does not run on the loop."""
    assert facts.short < SHORT_READS


def test_a_read_is_known_after_one_run(facts: StatementFacts) -> None:
    """It can be stopped if it turns out to be long."""
    in_thread(facts, True)
    assert facts.short >= SHORT_READS


def test_a_long_run_is_not_forgotten_at_once(facts: StatementFacts) -> None:
    """The last run counts."""
    in_thread(facts, True, False)
    assert facts.short < SHORT_READS


def test_a_write_has_to_be_short_three_times_in_a_row(facts: StatementFacts) -> None:
    """It cannot be stopped without losing the transaction."""
    in_thread(facts, True, True, False, True, True)
    assert facts.short < SHORT_WRITES
    in_thread(facts, True)
    assert facts.short >= SHORT_WRITES


def test_what_calls_functions_of_the_application_is_not_short(facts: StatementFacts) -> None:
    """Such functions may wait for something."""
    in_thread(facts, True)
    facts.called_functions()
    assert facts.short < SHORT_READS


def test_what_was_long_inline_goes_to_the_thread_longer_each_time(facts: StatementFacts) -> None:
    """It stays there twice as long each time, within bounds."""
    in_thread(facts, True)
    expected = []
    for _ in range(10):
        facts.ran_too_long()
        expected.append(runs_until_short(facts))
    assert expected == [8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]


def test_long_runs_in_the_thread_shorten_the_penalty_too(facts: StatementFacts) -> None:
    """They do, but a statement whose last run was long does not count as short."""
    in_thread(facts, True)
    facts.ran_too_long()
    in_thread(facts, *[False] * 8)
    assert facts.short < SHORT_READS
    in_thread(facts, True)
    assert facts.short >= SHORT_READS


def test_many_short_runs_are_a_new_beginning(facts: StatementFacts) -> None:
    """This takes a hundred short runs for each run of the penalty."""
    in_thread(facts, True)
    for _ in range(3):
        facts.ran_too_long()
        runs_until_short(facts)
    facts.inline += 32 * 100
    facts.ran_too_long()
    assert runs_until_short(facts) == 8


def test_steps_are_as_long_as_the_last_time(facts: StatementFacts) -> None:
    """Whether a separate thread is worthwhile may change with the data."""
    for long in (True, False):
        facts.ran_in_thread(short=False, steps_are_long=long)
        assert facts.steps_are_long is long


def test_sqlite_has_the_last_word(facts: StatementFacts) -> None:
    """SQLite's finding counts until it is forgotten; then the text decides again."""
    facts.found(Finding(Kind.TEMP_DML, frozenset({TEMP})))
    assert (facts.kind, facts.kind_of_text) == (Kind.TEMP_DML, Kind.READ)
    facts.forget_finding()
    assert (facts.kind, facts.finding) == (Kind.READ, None)


def test_the_table_is_bounded() -> None:
    """The text that has not been used for the longest time is unknown again."""
    table = FactsTable(3, ConnectionCounts())
    for number in range(3):
        in_thread(table.of(f"SELECT {number}"), True)
    assert table.of("SELECT 0").short >= SHORT_READS  # used
    table.of("SELECT 3")
    assert len(table) == 3
    assert "SELECT 0" in table
    assert "SELECT 1" not in table
    assert table.of("SELECT 1").short < SHORT_READS


def test_that_a_text_calls_functions_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its facts may be dropped while sqlite3 keeps it compiled and SQLite reports nothing more."""
    monkeypatch.setattr(module, "_MOST_CALLING", 3)
    table = FactsTable(1, ConnectionCounts())
    for sql in ("SELECT f(1)", "SELECT 2", "SELECT f(3)"):
        table.of(sql).calls_functions = "f(" in sql
    assert [table.of(f"SELECT {one}").calls_functions for one in ("f(1)", "2", "4")] == [
        True,
        False,
        False,
    ]
    table.of("SELECT f(5)").called_functions()
    table.of("SELECT 6")
    assert table.of("SELECT 7").calls_functions  # there are too many: any new text may


def test_long_texts_are_not_kept() -> None:
    """The longest kept has 4,096 characters; the kind of longer ones is determined each time."""
    table = FactsTable(3, ConnectionCounts())
    text = "SELECT " + "1" * (LONGEST_REMEMBERED - 7)
    assert len(text) == 4096
    assert table.of(text).kind is table.of(text + "1").kind is Kind.READ
    assert text in table
    assert text + "1" not in table


def test_findings_are_forgotten_and_costs_are_not() -> None:
    """Findings are dropped when a name may refer to another table."""
    table = FactsTable(3, ConnectionCounts())
    for sql in ("SELECT 1", "SELECT 2"):
        facts = table.of(sql)
        in_thread(facts, True)
        facts.found(Finding(Kind.WRITE))
    table.forget_findings()
    assert [table.of(sql).kind for sql in ("SELECT 1", "SELECT 2")] == [Kind.READ, Kind.READ]
    assert table.of("SELECT 1").short >= SHORT_READS
