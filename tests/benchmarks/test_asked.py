"""The requirements of the package are judged by the figures that they were stated for."""

from __future__ import annotations

import pytest

from benchmarks.asked.loads import asked_of_loads

from .asked import result

ASKED = {
    "point-reads: ReaderPool, for one of stock's (at least)": (
        "point-reads", "ReaderPool", "throughput", "stock", 5),
    "point-reads: ReaderPool, of synchronous (at least)": (
        "point-reads", "ReaderPool", "throughput", "synchronous", 0.35),
    "point-reads: SQLiteDatabase, Core, for one of stock's (at least)": (
        "point-reads", "SQLiteDatabase, Core", "throughput", "stock", 5),
    "point-reads: SQLiteDatabase, Core, of synchronous (at least)": (
        "point-reads", "SQLiteDatabase, Core", "throughput", "synchronous", 0.35),
    "point-reads: SQLitePool, for one of stock's (at least)": (
        "point-reads", "SQLitePool", "throughput", "stock", 4),
    "orm-get: ReaderPool, for one of stock's (at least)": (
        "orm-get", "ReaderPool", "throughput", "stock", 3),
    "orm-get: SQLitePool, for one of stock's (at least)": (
        "orm-get", "SQLitePool", "throughput", "stock", 3),
    "orm-get: SQLiteDatabase, for one of stock's (at least)": (
        "orm-get", "SQLiteDatabase", "throughput", "stock", 3),
    "one-row-writes: WriterPool, for one of stock's (at least)": (
        "one-row-writes", "WriterPool", "throughput", "stock", 5),
    "one-row-writes: WriterPool, p99, share of stock's": (
        "one-row-writes", "WriterPool", "p99_ms", "stock", 0.1),
    "one-row-writes: SQLiteDatabase, Core, for one of stock's (at least)": (
        "one-row-writes", "SQLiteDatabase, Core", "throughput", "stock", 5),
    "one-row-writes: SQLiteDatabase, Core, p99, share of stock's": (
        "one-row-writes", "SQLiteDatabase, Core", "p99_ms", "stock", 0.1),
    "one-row-writes: SQLitePool, for one of stock's (at least)": (
        "one-row-writes", "SQLitePool", "throughput", "stock", 4),
    "one-row-writes: run_write, for one of stock's (at least)": (
        "one-row-writes", "run_write", "throughput", "stock", 10),
    "one-row-writes: run_write, of synchronous (at least)": (
        "one-row-writes", "run_write", "throughput", "synchronous", 0.5),
    "one-row-writes: run_write_core, for one of stock's (at least)": (
        "one-row-writes", "run_write_core", "throughput", "stock", 10),
    "one-row-writes: run_write_core, of synchronous (at least)": (
        "one-row-writes", "run_write_core", "throughput", "synchronous", 0.5),
    "session-writes: run_write, for one of stock's (at least)": (
        "session-writes", "run_write", "throughput", "stock", 10),
    "session-writes: run_write, of synchronous (at least)": (
        "session-writes", "run_write", "throughput", "synchronous", 0.5),
    "one-row-writes-full: run_write_core, of synchronous (at least)": (
        "one-row-writes-full", "run_write_core", "throughput", "synchronous", 2),
    "one-row-writes-full: run_write, of synchronous (at least)": (
        "one-row-writes-full", "run_write", "throughput", "synchronous", 2),
    "mixed: reads: SQLiteDatabase, for one of stock's (at least)": (
        "mixed: reads", "SQLiteDatabase", "throughput", "stock", 4),
    "mixed: writes: SQLiteDatabase, for one of stock's (at least)": (
        "mixed: writes", "SQLiteDatabase", "throughput", "stock", 8),
    "mixed: scans: SQLiteDatabase, p50, share of stock's": (
        "mixed: scans", "SQLiteDatabase", "p50_ms", "stock", 1),
    "mixed: reads: SQLiteDatabase, loop lag p99, share of stock's": (
        "mixed: reads", "SQLiteDatabase", "loop_lag_p99_ms", "stock", 1),
    "mixed: reads: SQLiteDatabase, Core, for one of stock's (at least)": (
        "mixed: reads", "SQLiteDatabase, Core", "throughput", "stock", 4),
    "mixed: writes: SQLiteDatabase, Core, for one of stock's (at least)": (
        "mixed: writes", "SQLiteDatabase, Core", "throughput", "stock", 8),
    "mixed: scans: SQLiteDatabase, Core, p50, share of stock's": (
        "mixed: scans", "SQLiteDatabase, Core", "p50_ms", "stock", 1),
    "mixed: reads: SQLiteDatabase, Core, loop lag p99, share of stock's": (
        "mixed: reads", "SQLiteDatabase, Core", "loop_lag_p99_ms", "stock", 1),
    "social: SQLiteDatabase, Core, for one of aiosqlitepool, 100 connections's (at least)": (
        "social", "SQLiteDatabase, Core", "throughput", "aiosqlitepool, 100 connections", 3),
    "social-counts: SQLiteDatabase, Core, for one of aiosqlitepool, 100 connections's (at least)": (
        "social-counts", "SQLiteDatabase, Core", "throughput",
        "aiosqlitepool, 100 connections", 3),
    "social: SQLitePool, for one of aiosqlitepool, 100 connections's (at least)": (
        "social", "SQLitePool", "throughput", "aiosqlitepool, 100 connections", 3),
    "social-counts: SQLitePool, for one of aiosqlitepool, 100 connections's (at least)": (
        "social-counts", "SQLitePool", "throughput", "aiosqlitepool, 100 connections", 3),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_each_is_judged_by_its_own_figure(what: str) -> None:
    """The requirement is met just within its limit, but not just beyond it."""
    load, contender, figure, other, limit = ASKED[what]
    good, bad = (0.99, 1.01) if figure != "throughput" else (1.01, 0.99)
    for factor, kept in ((good, True), (bad, False)):
        figures = {other: {}, contender: {figure: limit * factor}}
        loads = [result(load, {"stock": {"throughput": 7.0}, **figures})]
        [one] = [one for one in asked_of_loads(loads) if one.what == what]
        assert (one.limit, one.kept) == (limit, kept)
        assert one.measured == pytest.approx(limit * factor)


@pytest.mark.parametrize(("many", "kept"), [(100.0, True), (80.0, False)])
def test_turns(many: float, kept: bool) -> None:
    """A turn with 5,000 tasks in line takes at most 1.2 times as long as one with 50."""
    few = result("turns 50", {"WriterPool": {"throughput": 100.0}})
    [one] = asked_of_loads([few, result("turns 5000", {"WriterPool": {"throughput": many}})])
    assert (one.limit, one.kept) == (1.2, kept)
    assert one.measured == pytest.approx(100 / many)


def test_it_was_asked_of_all_cores() -> None:
    """A run on one core is not judged by it."""
    assert asked_of_loads([result("point-reads", {"stock": {}, "SQLitePool": {}}, cores=1)]) == []


def test_nothing_is_said_of_loads_that_did_not_run() -> None:
    """This includes contenders that did not take part."""
    assert asked_of_loads([]) == []
    assert asked_of_loads([result("point-reads", {"stock": {}})]) == []
    assert asked_of_loads([result("turns 50", {"WriterPool": {}})]) == []
