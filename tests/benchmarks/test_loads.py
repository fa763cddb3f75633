"""All loads run with all contenders, and the report is complete and true.

Speed is not asserted, because it depends on what else runs on the machine.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from benchmarks.__main__ import known, main, room
from benchmarks.loads import LOADS, one_row_writes
from benchmarks.loads.base import Load, Plan
from benchmarks.running.rounds import Effort, run_loads

from .calling import CORES, Json

DRIVERS = ["aiosqlite", "aiosqlite, connect each", "aiosqlitepool", "apsw"]
STOCK_POOLS = ["stock, NullPool", "stock, one connection", "stock as it comes"]
RUN_READ = ["run_read", "run_read_core"]
RUN_WRITE = ["run_write", "run_write_core"]
READING = [
    *("stock", "ReaderPool", "SQLitePool", "SQLitePool, imports", "SQLiteDatabase, Core"),
    *("SQLiteDatabase", *RUN_READ),
    *("synchronous", "asyncio.to_thread", *DRIVERS),
]
WRITING = [
    *("stock", "WriterPool", "SQLitePool", "SQLitePool, imports", "SQLiteDatabase, Core"),
    *("SQLiteDatabase", *RUN_WRITE),
    *("synchronous", "asyncio.to_thread", *DRIVERS),
]
MIXED = [
    *("stock", "SQLitePool", "SQLiteDatabase, Core", "SQLiteDatabase", "closures"),
    *("asyncio.to_thread", "aiosqlitepool", "stock as it comes"),
]
OPEN_LOOP = [*MIXED[:5], "closures, Core", "asyncio.to_thread"]
SOCIAL = [
    *("stock", "stock, 100 connections", "ReaderPool", "SQLitePool", "SQLiteDatabase, Core"),
    *(*RUN_READ, "synchronous", "asyncio.to_thread"),
    *("aiosqlite, connect each", "aiosqlitepool", "aiosqlitepool, 100 connections"),
]
REUSE = [
    *("stock, NullPool", "stock", "aiosqlite, connect each", "aiosqlite", "SQLitePool"),
    *("synchronous, NullPool", "synchronous", "asyncio.to_thread"),
]
THREADS = ["synchronous", "asyncio.to_thread"]
OURS = ["SQLitePool", "SQLiteDatabase, Core"]
MORE_READS = ["stock", "ReaderPool", *OURS, *RUN_READ[:1], *THREADS, "aiosqlitepool"]
MORE_WRITES = ["stock", "WriterPool", *OURS, *RUN_WRITE[:1], *THREADS, "aiosqlitepool"]

CONTENDERS = {
    "point-reads": [*READING, "prepared read", *STOCK_POOLS],
    "orm-get": [*READING[:3], "SQLiteDatabase", *RUN_READ[:1], *THREADS],
    "join": READING,
    "one-row-writes": WRITING + STOCK_POOLS,
    "one-row-writes-full": [*WRITING, "stock as it comes"],
    "session-writes": [*WRITING[:3], "SQLiteDatabase", *RUN_WRITE[:1], *THREADS],
    "read-modify-write": [
        *("stock", "stock, BEGIN IMMEDIATE", "WriterPool", "SQLitePool", "SQLiteDatabase"),
        *(*RUN_WRITE, *THREADS, *DRIVERS),
    ],
    "bulk-inserts": WRITING,
    "mixed: reads": MIXED,
    "mixed: writes": MIXED,
    "mixed: scans": MIXED,
    **{f"open-loop: {part}": OPEN_LOOP for part in ("reads", "writes", "scans")},
    "social": SOCIAL,
    "social-counts": SOCIAL,
    "open-or-reuse 10": REUSE,
    "open-or-reuse 100": REUSE,
    "open-or-reuse-by-size 1": REUSE,
    **{f"reads-by-tasks {tasks}": MORE_READS for tasks in (1, 10)},
    **{f"writes-by-tasks {tasks}": MORE_WRITES for tasks in (1, 10)},
    **{f"turns {tasks}": ["WriterPool", *OURS, *RUN_WRITE[:1]] for tasks in (50, 5000)},
}
WITH_BOOKS = {
    *("one-row-writes", "one-row-writes-full", "session-writes", "read-modify-write"),
    *(
        "bulk-inserts",
        "mixed: writes",
        "open-loop: writes",
        *(f"writes-by-tasks {tasks}" for tasks in (1, 10)),
    ),
    *("turns 50", "turns 5000"),
}
NOT_OURS = ("stock", "synchronous", "asyncio.to_thread", "aiosqlite", "apsw")


@pytest.fixture(scope="module")
def report(written: Path) -> Json:
    found: Json = json.loads(written.read_text())
    return found


def runs(report: Json) -> Iterator[tuple[str, Json]]:
    """Return all runs, each with the name of its load."""
    return ((load["load"], run) for load in report["loads"] for run in load["runs"])


def test_every_contender_runs_and_gets_work_done(report: Json) -> None:
    """Each load has all its contenders, which all have acknowledged work; this holds on all cores
    and on one.
    """
    names = {
        (load["load"], load["cores"]): [one["contender"] for one in load["summaries"]]
        for load in report["loads"]
    }
    assert names == {(load, cores): CONTENDERS[load] for load in CONTENDERS for cores in CORES}
    assert [(load, run["contender"]) for load, run in runs(report) if not run["acknowledged"]] == []


def test_process_time_is_measured_everywhere(report: Json) -> None:
    """It is measured by operation, and as a share of cores, of one core if pinned to it."""
    for load in report["loads"]:
        for run in load["runs"]:
            assert min(run["process_us"], run["cores_used"]) > 0
            if load["cores"] == 1:
                assert run["cores_used"] < 1.1, (load["load"], run)
        for one in load["summaries"]:
            # A single thread could not run several parts at once.
            apart = load["load"].startswith(("mixed", "open-loop", "turns"))
            assert (one["process_ratio"] is None) == apart, (load["load"], one)


def test_ratios_refer_to_stock_and_to_synchronous(report: Json) -> None:
    """The baseline's own ratios are 1, as is synchronous SQLAlchemy's to itself."""
    for load in report["loads"]:
        ratios = {one["contender"]: one for one in load["summaries"]}
        assert ratios[load["baseline"]]["p99_ratio"] == 1
        if (synchronous := ratios.get("synchronous")) and synchronous["synchronous_ratio"]:
            assert synchronous["synchronous_ratio"] == 1
        if synchronous:
            assert synchronous["process_ratio"] == 1


def test_all_have_the_same_settings(report: Json) -> None:
    """In each load, connections report the same settings, except for stock as it comes."""
    for name, run in runs(report):
        pragmas = run["settings"]["pragmas"]
        told = [pragmas[one] for one in ("journal_mode", "synchronous", "foreign_keys")]
        if run["contender"] == "stock as it comes":
            assert told == ["delete", "FULL", "OFF"]
        else:
            assert told == ["wal", "FULL" if name == "one-row-writes-full" else "NORMAL", "ON"]
            assert (pragmas["cache_size"], pragmas["temp_store"]) == ("-16384", "MEMORY")


def test_versions_and_machine_are_recorded(report: Json) -> None:
    """Figures mean nothing without them; apsw has its own SQLite, whose version is recorded."""
    environment = report["environment"]
    for name in ("sqlite", "python", "sqlalchemy", "aiosqlite", "aiosqlitepool", "file_system"):
        assert environment[name], name
    assert environment["cpus"] >= 1
    versions = {run["contender"]: run["settings"]["sqlite"] for _, run in runs(report)}
    assert versions["stock"] == versions["aiosqlitepool"] == environment["sqlite"]
    assert environment["apsw"].startswith(versions["apsw"])


def test_the_books_balance(report: Json) -> None:
    """The file has exactly the acknowledged writes, except where a loss is the result."""
    assert {name for name, run in runs(report) if run["books"] is not None} == WITH_BOOKS
    for name, run in runs(report):
        if run["books"] is not None and (name, run["contender"]) != ("read-modify-write", "stock"):
            assert run["books"]["acknowledged"] == run["books"]["found"] > 0, (name, run)


def test_the_package_has_no_errors(report: Json) -> None:
    """This package's engines complete all requested work."""
    ours = [run for _, run in runs(report) if not run["contender"].startswith(NOT_OURS)]
    assert len(ours) > 30
    assert [run for run in ours if run["errors"]] == []


def test_loop_lag_is_measured_where_there_is_a_loop(report: Json) -> None:
    """Each asyncio contender has a loop lag; the synchronous ones have none."""
    for _, run in runs(report):
        assert (run["loop_lag_p99_ms"] is None) == run["contender"].startswith("synchronous")


def test_an_unknown_load_is_refused_with_the_known_ones() -> None:
    """The error names the misspelt load and the existing ones."""
    with pytest.raises(typer.BadParameter, match="'point-read' is none of point-reads, orm-get"):
        known(["turns", "point-read"])
    assert known(None) == list(LOADS)


def test_some_contenders(capsys: pytest.CaptureFixture[str]) -> None:
    """The requested ones run, with stock and synchronous; other names are refused."""
    main(["orm-get"], contenders=["asyncio.to_thread"], quick=True)
    shown = re.findall(r"^│ (\S+) ", capsys.readouterr().out, re.MULTILINE)
    assert shown == ["stock", *THREADS]
    with pytest.raises(typer.BadParameter, match="'to_thread' is none of ReaderPool; SQLiteData"):
        main(["orm-get"], contenders=["to_thread"], quick=True)


def test_large_files_need_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk has no room, the command says so before it writes anything."""
    full = shutil.disk_usage(".")._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    with pytest.raises(typer.BadParameter, match=r"needs 6 GiB in .*, which has 1\.0; free some"):
        room(large=True)
    assert room(large=False) is False


def test_large_and_small_plans() -> None:
    """A file of 2 GiB is used only on request."""
    by_size = LOADS["open-or-reuse-by-size"]
    sizes = {
        large: [load.point.x for load in by_size(Plan(large=large)) if load.point]
        for large in (False, True)
    }
    assert sizes == {False: [1, 100], True: [1, 100, 2048]}


def test_books_that_do_not_balance_fail_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A contender that may lose updates is exempt: its loss is a result."""
    [load] = LOADS["one-row-writes"](Plan())
    lying = replace(load, contenders=load.contenders[:1], effects=lambda _database: 0)
    monkeypatch.setitem(LOADS, "turns", lambda _plan: [lying])
    with pytest.raises(typer.Exit) as stopped:
        main(["turns"], quick=True)
    assert stopped.value.exit_code == 1
    assert "stock, round 1: the books do NOT balance" in capsys.readouterr().out
    monkeypatch.setitem(
        LOADS, "turns", lambda _plan: [replace(lying, may_lose=frozenset({"stock"}))]
    )
    main(["turns"], quick=True)
    assert "NOT" not in capsys.readouterr().out


def test_a_quick_call_judges_nothing(report: Json) -> None:
    """A few tasks and a short time prove nothing about the requirements."""
    assert (report["quick"], report["asked"]) == (True, [])


def test_the_loads_of_a_series_take_turns(tmp_path: Path) -> None:
    """They are compared with each other, and a minute between them would distort the ratio."""
    shrunk = (load.shrunk() for load in LOADS["turns"](Plan()))
    loads = [replace(load, contenders=load.contenders[:2]) for load in shrunk]
    asked: list[str] = []

    def watched(load: Load) -> Load:
        def effects(database: Path) -> int:
            asked.append(load.name)
            return one_row_writes.moved(database)

        return replace(load, effects=effects)

    results = run_loads(
        [watched(load) for load in loads], Effort(2, 0.001, 1), tmp_path, lambda _name: None
    )
    few, many = (load.name for load in loads)
    assert asked == [few, few, many, many, many, many, few, few]
    assert [result.load for result in results] == [few, many]
