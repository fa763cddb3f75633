"""Counters of statements by text: their number is bounded, and no run is lost."""

from __future__ import annotations

import gc
import os
import sys

import pytest

from sa_sqlite_pool.sqlite.statements import LONGEST_REMEMBERED
from sa_sqlite_pool.stats.counts import SLOWEST, ConnectionCounts, EngineCounts
from sa_sqlite_pool.transactions.facts import FactsTable


class Owner:
    """Represents a connection."""


def run(table: FactsTable, sql: str, seconds: float) -> None:
    table.of(sql).runs.ran_in_thread(seconds)


def test_texts_whose_facts_are_dropped() -> None:
    """The slow texts keep their own counts, and the others are added to the sum."""
    counts = ConnectionCounts()
    table = FactsTable(2, counts)
    for number in range(3 * SLOWEST):
        run(table, f"SELECT {number}", 0.001 * (number % (2 * SLOWEST) + 1))
    texts = [sql for sql, _ in counts.all_runs() if sql is not None]
    assert len(texts) == len(set(texts)) <= SLOWEST + 2
    assert f"SELECT {2 * SLOWEST - 1}" in texts  # the slowest of all
    assert "SELECT 0" not in texts
    assert sum(runs.in_thread for _, runs in counts.all_runs()) == 3 * SLOWEST


def test_a_text_that_comes_back_goes_on() -> None:
    """Its count includes the runs from before its facts were dropped."""
    counts = ConnectionCounts()
    table = FactsTable(1, counts)
    for _ in range(3):
        run(table, "SELECT 1", 0.5)
        run(table, "SELECT 2", 0.25)
    assert {sql: runs.in_thread for sql, runs in counts.all_runs()} == {
        None: 0,
        "SELECT 1": 3,
        "SELECT 2": 3,
    }


def test_texts_too_long_to_be_remembered_are_counted() -> None:
    """They are counted in the sum."""
    engine, owner = EngineCounts(), Owner()
    table = FactsTable(3, engine.new_connection(owner))
    run(table, "SELECT " + "1" * LONGEST_REMEMBERED, 0.5)
    found = engine.statements()
    assert (found.in_thread, found.seconds, found.slowest) == (1, 0.5, ())


def test_the_slowest_of_all_connections() -> None:
    """The slowest come first, at most fifty, each text once, closed connections included."""
    engine, owner, gone = EngineCounts(), Owner(), Owner()
    tables = [FactsTable(200, engine.new_connection(one)) for one in (owner, gone)]
    for table in tables:
        for number in range(SLOWEST + 10):
            run(table, f"SELECT {number}", 0.001 * (number + 1))
    run(tables[1], "SELECT 5", 9.0)
    before = engine.statements()
    del gone
    gc.collect()
    found = engine.statements()
    assert found == before
    assert len(found.slowest) == SLOWEST
    first, second, *_ = found.slowest
    assert (first.sql, first.runs, first.longest_seconds) == ("SELECT 5", 3, 9.0)
    assert (second.sql, second.runs) == (f"SELECT {SLOWEST + 9}", 2)
    assert found.runs == found.in_thread == 2 * (SLOWEST + 10) + 1


def test_long_texts_are_shown_cut() -> None:
    """Texts that are equal after the cut are counted as one."""
    engine, owner = EngineCounts(), Owner()
    table = FactsTable(3, engine.new_connection(owner))
    for end in "ab":
        run(table, "SELECT " + "1" * 2_000 + end, 0.5)
    (found,) = engine.statements().slowest
    assert (len(found.sql), found.sql[-1], found.runs) == (1_000, "…", 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pytest has threads, which fork warns of")
def test_a_child_process_begins_anew() -> None:
    """A child process does not inherit the counts of its parent."""
    engine, owner = EngineCounts(), Owner()
    run(FactsTable(3, engine.new_connection(owner)), "SELECT 1", 0.5)
    pid = os.fork()
    if pid == 0:
        os._exit(engine.opened + engine.statements().runs)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert engine.statements().runs == 1
