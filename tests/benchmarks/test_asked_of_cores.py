"""Requirements in processor time and against `asyncio.to_thread`, on one core and on all cores."""

from __future__ import annotations

import pytest

from benchmarks.asked.cores import asked_of_cores

from .asked import result

THREADS = "asyncio.to_thread"
DOORS = ("SQLitePool", "SQLiteDatabase, Core", "SQLiteDatabase", "closures", "closures, Core")

PROCESS_TIME = {
    ("point-reads", "SQLiteDatabase, Core"): 1.6,
    ("point-reads", "run_read_core"): 1.25,
    ("orm-get", "SQLiteDatabase"): 1.4,
    ("orm-get", "run_read"): 1.3,
    ("one-row-writes", "SQLiteDatabase, Core"): 1.8,
    ("one-row-writes", "run_write_core"): 1.1,
    ("session-writes", "run_write"): 1.2,
}
BESIDE_THREADS = {
    ("point-reads", "SQLiteDatabase, Core"): 1.0,
    ("point-reads", "run_read_core"): 1.15,
    ("one-row-writes", "run_write_core"): 1.15,
}
OF_OPEN_LOOP = [
    ("p99, share of stock's", "p99_ms", "stock", 1),
    ("p99, share of asyncio.to_thread's", "p99_ms", THREADS, 1),
    ("loop lag p99, share of stock's", "loop_lag_p99_ms", "stock", 1),
    ("loop lag p99, share of asyncio.to_thread's", "loop_lag_p99_ms", THREADS, 1),
    ("process time, share of stock's", "process_us", "stock", 0.5),
]
NAMES = {1: "one core", None: "all cores"}


@pytest.mark.parametrize(("load", "contender"), PROCESS_TIME)
def test_process_time_on_one_core(load: str, contender: str) -> None:
    """It is compared with synchronous SQLAlchemy's; there is no requirement for all cores."""
    limit = PROCESS_TIME[load, contender]
    for factor, kept in ((0.99, True), (1.01, False)):
        contenders = {"synchronous": {}, contender: {"process_us": limit * factor}}
        [one] = asked_of_cores([result(load, contenders, 1)])
        assert one.what == f"{load}: {contender}, on one core, process time for synchronous's"
        assert (one.limit, one.kept) == (limit, kept)
        assert asked_of_cores([result(load, contenders)]) == []


@pytest.mark.parametrize(("load", "contender"), BESIDE_THREADS)
@pytest.mark.parametrize("cores", NAMES)
def test_throughput_beside_threads(load: str, contender: str, cores: int | None) -> None:
    """This applies on one core and on all, each with separate runs."""
    limit = BESIDE_THREADS[load, contender]
    for factor, kept in ((1.01, True), (0.99, False)):
        contenders = {THREADS: {}, contender: {"throughput": limit * factor}}
        [one] = asked_of_cores([result(load, contenders, cores)])
        assert one.what == (
            f"{load}: {contender}, on {NAMES[cores]}, for one of asyncio.to_thread's (at least)"
        )
        assert (one.limit, one.kept) == (limit, kept)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("cores", NAMES)
@pytest.mark.parametrize(("what", "figure", "other", "limit"), OF_OPEN_LOOP)
def test_requests_at_random_moments(
    door: str, cores: int | None, what: str, figure: str, other: str, limit: float
) -> None:
    """They are answered no later than by stock and by threads, with half of stock's work."""
    load = "open-loop: reads"
    for factor, kept in ((0.99, True), (1.01, False)):
        contenders = {"stock": {}, THREADS: {}, door: {figure: limit * factor}}
        asked = asked_of_cores([result(load, contenders, cores)])
        [one] = [one for one in asked if one.what == f"{load}: {door}, on {NAMES[cores]}, {what}"]
        assert (one.limit, one.kept, len(asked)) == (limit, kept, len(OF_OPEN_LOOP))


def test_nothing_is_said_of_what_did_not_run() -> None:
    assert asked_of_cores([]) == []
    assert asked_of_cores([result("point-reads", {"stock": {}, "run_read_core": {}}, 1)]) == []
