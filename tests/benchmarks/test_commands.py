"""The other commands of the benchmarks run, and their reports are complete and true.

Speed is not asserted, because it depends on what else runs on the machine.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .calling import Json, call

OURS = {"ReaderPool", "SQLitePool", "WriterPool"}


@pytest.mark.parametrize("module", ["wal_growth", "checkpoint_latency", "wal_hour"])
def test_the_long_ones_start(module: str) -> None:
    """They print their options; their measurements and reports are tested by `make test-long`."""
    done = call("--help", module=f"benchmarks.{module}")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


def test_after_a_cancellation() -> None:
    """Every contender is measured, including the stock engine."""
    done = call("--rounds", "1", "--seconds", "0.3", module="benchmarks.after_cancellation")
    assert done.returncode == 0, done.stderr
    for contender in ("stock", *OURS):
        assert re.search(rf"{contender} +│ +[\d.]+ │ +[\d.]+ │ +[\d.]+ │", done.stdout)


@pytest.mark.long
def test_growth_of_the_log(tmp_path: Path) -> None:
    """All contenders write, those with readers read, books balance, requirements are shown."""
    file = tmp_path / "report.json"
    arguments = ("--rounds", "1", "--seconds", "0.2", "--json", str(file))
    done = call(*arguments, module="benchmarks.wal_growth")
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    runs = {run["contender"]: run for run in report["runs"]}
    assert list(runs) == ["stock", "SQLiteDatabase", "stock alone", "SQLiteDatabase alone"]
    assert all(run["books"]["found"] > 0 and run["errors"] == {} for run in runs.values())
    assert all(run["books"]["acknowledged"] == run["books"]["found"] for run in runs.values())
    assert [run["reads"] > 0 for run in runs.values()] == [True, True, False, False]
    assert runs["stock"]["largest_log_mib"] > 0
    for asked in report["asked"]:
        assert re.search(rf"{re.escape(asked['what'])} +│ +{asked['limit']:g} │", done.stdout)


@pytest.mark.long
def test_latency_beside_checkpoints(tmp_path: Path) -> None:
    """Both loads have all contenders, whose books balance and whose settings match their names."""
    file = tmp_path / "report.json"
    arguments = ("--seconds", "0.2", "--json", str(file))
    done = call(*arguments, module="benchmarks.checkpoint_latency")
    assert done.returncode == 0, done.stderr
    loads = json.loads(file.read_text())["loads"]
    assert [load["load"] for load in loads] == ["closed", "paced"]
    for load in loads:
        runs = {one["run"]["contender"]: one["run"] for one in load["runs"]}
        assert list(runs) == ["no checkpoints", "keeper", "within commits", "stock"]
        assert all(run["acknowledged"] > 0 and run["errors"] == {} for run in runs.values())
        assert all(run["books"]["acknowledged"] == run["books"]["found"] for run in runs.values())
        pragmas = [run["settings"]["pragmas"]["wal_autocheckpoint"] for run in runs.values()]
        assert (pragmas[0], pragmas[2:]) == ("0", ["1000", "1000"])


@pytest.mark.long
def test_an_hour_of_the_log(tmp_path: Path) -> None:
    """Both engines complete it, and a picture is drawn."""
    file, picture = tmp_path / "report.json", tmp_path / "hour.png"
    arguments = ("--compress", "3000", "--json", str(file), "--picture", str(picture))
    done = call(*arguments, module="benchmarks.wal_hour")
    assert done.returncode == 0, done.stderr
    runs = json.loads(file.read_text())["runs"]
    assert [run["contender"] for run in runs] == ["stock", "SQLiteDatabase"]
    for run in runs:
        assert min(run["writes"], run["imports"], run["reads"]) > 0
        assert run["errors"] == {}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Json]:
    """Return the output and the report of a short call with three processes."""
    file = tmp_path_factory.mktemp("benchmarks") / "report.json"
    asked = ("--processes", "3", "--tasks", "2", "--seconds", "0.5", "--rounds", "1")
    done = call(*asked, "--json", str(file), module="benchmarks.processes")
    assert done.returncode == 0, done.stderr
    written: Json = json.loads(file.read_text())
    return done.stdout, written


def test_processes_on_one_file(processes: tuple[str, Json]) -> None:
    """Every process of every contender writes through its own door, and the books balance."""
    _, report = processes
    runs = {run["contender"]: run for run in report["runs"]}
    doors = {name: [one["door"] for one in run["processes"]] for name, run in runs.items()}
    assert doors == {
        "stock": ["stock"] * 3,
        "SQLiteDatabase": ["SQLiteDatabase"] * 3,
        "SQLitePool": ["SQLitePool"] * 3,
        "with an outsider": ["SQLiteDatabase", "SQLiteDatabase", "stock"],
    }
    for run in runs.values():
        assert run["books"]["acknowledged"] == run["books"]["found"] > 0
        counts = [one["transactions"] for one in run["processes"]]
        assert run["evenness"] == min(counts) / max(counts)
        assert run["throughput"] == sum(counts) / 0.5
        assert run["p50_ms"] <= run["p99_ms"] <= run["max_ms"]
        # A transaction's time includes the sleep inside it.
        assert run["p50_ms"] > 2
    ours = [run for name, run in runs.items() if name != "stock"]
    assert [run["errors"] for run in ours] == [{}] * 3


def test_processes_run_with_the_same_pragmas(processes: tuple[str, Json]) -> None:
    """They also have their own busy time-outs, which are reported."""
    stdout, report = processes
    settings = {door: one for run in report["runs"] for door, one in run["settings"].items()}
    assert set(settings) == {"stock", "SQLiteDatabase", "SQLitePool"}
    pragmas = [one["pragmas"] for one in settings.values()]
    for name in ("journal_mode", "synchronous", "foreign_keys", "cache_size", "temp_store"):
        assert len({one[name] for one in pragmas}) == 1, name
    assert settings["stock"]["pragmas"]["busy_timeout"] == "5000"
    assert "stock: AsyncAdaptedQueuePool 5+10; journal_mode=wal, synchronous=NORMAL" in stdout


def test_what_was_asked_of_processes_is_told(processes: tuple[str, Json]) -> None:
    """Each is shown with its limit; the ratios are those of the runs."""
    stdout, report = processes
    asked = {one["what"]: one for one in report["asked"]}
    for one in asked.values():
        assert re.search(rf"{re.escape(one['what'])} +│ +{one['limit']:g} │", stdout)
    runs = {run["contender"]: run for run in report["runs"]}
    for name in ("SQLiteDatabase", "SQLitePool"):
        ratio = asked[f"{name}: p99, share of stock's"]
        assert ratio["measured"] == runs[name]["p99_ms"] / runs["stock"]["p99_ms"]
        assert ratio["kept"] == (ratio["measured"] <= 0.1)
        share = asked[f"{name}: throughput, for one of stock's (at least)"]
        assert share["kept"] == (runs[name]["throughput"] >= runs["stock"]["throughput"])
    outsider = asked["with an outsider: least/most transactions of a process (at least)"]
    assert outsider["measured"] == runs["with an outsider"]["evenness"]
