"""The same loads on several Pythons are shown in one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.page import pythons
from benchmarks.report.reports import read
from benchmarks.report.results import Report

from .calling import CORES, ROOT, call

PAGE = ROOT / "docs" / "benchmarks.md"


def on(report: Report, python: str, event_loop: str) -> Report:
    """Return the report as if from this Python and loop, with two of its loads."""
    environment = replace(report.environment, python=python, event_loop=event_loop)
    loads = [load for load in report.loads if load.load in {"point-reads", "orm-get"}]
    return replace(report, environment=environment, loads=loads)


def test_a_line_for_each_python_loop_and_number_of_cores(written: Path, tmp_path: Path) -> None:
    """The command prints a table for each load, and writes them into the page on request."""
    reports = [
        on(read(written), "CPython 3.11.7", "asyncio"),
        on(read(written), "CPython 3.13.0", "uvloop 0.23.0"),
    ]
    files = [tmp_path / f"{number}.json" for number in range(len(reports))]
    for file, report in zip(files, reports, strict=True):
        file.write_bytes(TypeAdapter(Report).dump_json(report))
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    done = call(*map(str, files), "--page", str(page), module="benchmarks.pythons")
    assert done.returncode == 0, done.stderr
    made = done.stdout.strip()
    assert made.count("*point-reads*") == made.count("*orm-get*") == 1
    for begin in ("| CPython 3.11.7, asyncio, ", "| CPython 3.13.0, uvloop 0.23.0, "):
        assert made.count(begin) == 2 * len(CORES)
    [stock, *_] = reports[0].loads[0].summaries
    assert stock.process_ratio is not None
    assert f"| {stock.throughput.median:,.0f} ({stock.process_ratio:.2f}) |" in made
    assert made in page.read_text()
    assert pythons.write(page.read_text(), made) == page.read_text()


def test_a_contender_that_did_not_run(written: Path) -> None:
    """It is shown as a dash."""
    both = [on(read(written), name, "asyncio") for name in ("CPython 3.11.7", "CPython 3.13.0")]
    few = [replace(load, summaries=load.summaries[:1]) for load in both[1].loads]
    lines = pythons.tables([both[0], replace(both[1], loads=few)]).splitlines()
    [line, *_] = [line for line in lines if line.startswith("| CPython 3.13.0")]
    others = len(both[0].loads[0].summaries) - 1
    assert line.endswith(" | -" * others + " |")
