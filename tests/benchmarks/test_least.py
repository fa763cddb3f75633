"""The least work possible for any package produces correct results, and is shown beside ours."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import bindparam, select

from benchmarks.asked.cores import PROCESS_TIME
from benchmarks.databases import files, items
from benchmarks.least import threads
from benchmarks.least.kinds import KINDS, loads
from benchmarks.loads import one_row_writes
from benchmarks.loads.base import Load
from benchmarks.measuring.clocks import WrongAnswerError
from benchmarks.ways.contenders import Concurrent, Contender, Measurement, Part, Work
from benchmarks.ways.engines import PRAGMAS
from benchmarks.ways.steps import Run, Statement, Steps, check_rows

from .calling import Json, call

PAIRS = [
    (load, contender)
    for load in loads()
    for contender in load.contenders
    if contender.name.startswith("least")
]
READERS, WRITERS = (
    [
        pytest.param(load, contender, id=f"{load.name}: {contender.name}")
        for load, contender in PAIRS
        if load.parts[0].writes is writes
    ]
    for writes in (False, True)
)


def run(contender: Contender, database: Path, part: Part) -> Measurement:
    """Run the contender for a moment."""
    few = replace(part, tasks=4, rows=100)
    work = Work((few,), seconds=0.01, warm_up_per_task=1, seed=0, pragmas=PRAGMAS)
    return contender.run(database, work)[part.name]


@pytest.fixture(scope="module")
def to_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("least") / "items.db"
    files.create(database, items.fill)
    return database


@pytest.mark.parametrize(("load", "contender"), READERS)
def test_a_read_has_its_rows(load: Load, contender: Contender, to_read: Path) -> None:
    """A read that returns other rows is noticed."""
    [part] = load.parts
    measurement = run(contender, to_read, part)
    assert measurement.warm_up.errors + measurement.measured.errors == {}
    assert measurement.measured.acknowledged > 0
    assert measurement.settings.pragmas["journal_mode"] == "wal"

    def wrong(key: int) -> Steps:
        found = yield next(part.operation(key))
        check_rows([(found,)], [("something else",)])

    measured = run(contender, to_read, replace(part, operation=wrong)).measured
    assert set(measured.errors) == {"WrongAnswerError: other rows than those asked for"}


@pytest.mark.parametrize(("load", "contender"), WRITERS)
def test_a_write_is_stored_unless_it_failed(
    load: Load, contender: Contender, tmp_path: Path
) -> None:
    """Every other transaction fails after its UPDATE, and is rolled back."""
    database = tmp_path / "counters.db"
    files.create(database, load.fill)
    [part] = load.parts
    failing = False

    def write(key: int) -> Steps:
        nonlocal failing
        yield from part.operation(key)
        failing = not failing
        if failing:
            raise WrongAnswerError("on purpose")

    measurement = run(contender, database, replace(part, operation=write))
    acknowledged = measurement.warm_up.acknowledged + measurement.measured.acknowledged
    errors = measurement.warm_up.errors + measurement.measured.errors
    assert set(errors) == {"WrongAnswerError: on purpose"}
    assert one_row_writes.moved(database) == acknowledged > 0


def test_a_call_has_one_snapshot(tmp_path: Path) -> None:
    """In the thread, another connection writes between its two reads."""
    database = tmp_path / "counters.db"
    files.create(database, one_row_writes.fill)
    counters = one_row_writes.COUNTERS
    value = Statement.of(select(counters.c.v).where(counters.c.id == bindparam("key")))
    seen = []

    def read_twice(key: int) -> Steps:
        for _ in range(2):
            [(found,)] = yield Run(value, {"key": key})
            seen.append(found)
            with closing(sqlite3.connect(database, isolation_level=None)) as other:
                other.execute("UPDATE t SET v = v + 1")

    part = Part("part", "", "", tasks=1, rows=1, operation=read_twice)
    run(Concurrent("thread", threads.reads), database, part)
    assert seen[0::2] == seen[1::2]
    assert len(set(seen)) > 1


def test_what_was_asked_is_compared() -> None:
    """All requirements for process time are compared."""
    asked = {(kind.load, kind.ours) for kind in KINDS if kind.asked is not None}
    assert asked == set(PROCESS_TIME)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Json]:
    """Return the output and the report of a very short call."""
    file = tmp_path_factory.mktemp("benchmarks") / "report.json"
    arguments = ("--rounds", "1", "--seconds", "0.005", "--json", str(file))
    done = call(*arguments, module="benchmarks.least")
    assert done.returncode == 0, done.stdout + done.stderr
    report: Json = json.loads(file.read_text())
    return done.stdout, report


def test_each_kind_is_shown(written: tuple[str, Json]) -> None:
    """The requirement, the least and ours are shown, relative to synchronous in the same round."""
    stdout, report = written
    assert [one["kind"] for one in report["figures"]] == [kind.name for kind in KINDS]
    runs = {
        (load["load"], run["contender"]): run for load in report["loads"] for run in load["runs"]
    }
    for kind, figure in zip(KINDS, report["figures"], strict=True):
        synchronous = runs[kind.load, "synchronous"]["process_us"]
        for column, contender in (("least", kind.least), ("ours", kind.ours)):
            ratio = runs[kind.load, contender]["process_us"] / synchronous
            assert figure[column] == pytest.approx(ratio)
        asked = "-" if kind.asked is None else f"{kind.asked:.2f}"
        cells = (kind.name, asked, f"{figure['least']:.2f}", f"{figure['ours']:.2f}")
        lines = [line.split("│")[1:-1] for line in stdout.splitlines()]
        assert [*cells] in [[cell.strip() for cell in line] for line in lines]


def test_every_run_was_right(written: tuple[str, Json]) -> None:
    _, report = written
    for load in report["loads"]:
        for run in load["runs"]:
            assert (run["errors"], run["acknowledged"] > 0) == ({}, True)
            if load["load"] in {"one-row-writes", "session-writes"}:
                assert run["books"]["acknowledged"] == run["books"]["found"] > 0
