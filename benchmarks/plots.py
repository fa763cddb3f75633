"""docs/benchmarks.md and its pictures, from reports: ``python -m benchmarks.plots FILE.json ...``.

No figure of the page is typed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .loads.reuse import BY_SIZE, OPEN_OR_REUSE
from .loads.scaling import READS_BY_TASKS, WRITES_BY_TASKS
from .page import bars, lines
from .page.blocks import write
from .page.finding import MissingError, load, pinned, series
from .report.reports import read
from .report.results import Report

_DOCS = Path("docs")

GROUPS = {
    "reads": ("Reads", ("point-reads", "orm-get", "join")),
    "writes": ("Writes of one row", ("one-row-writes", "one-row-writes-full", "session-writes")),
    "transactions": ("Larger transactions", ("read-modify-write", "bulk-inserts")),
    "mixed": (
        "Reads, writes and a scan at once",
        ("mixed: reads", "mixed: writes", "mixed: scans"),
    ),
    "social": ("The load that aiosqlitepool publishes", ("social", "social-counts")),
}
"""The loads that share a picture."""


def main(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.json ...",
            help="What --json wrote; of two loads of the same name, the later one counts.",
        ),
    ],
    page: Annotated[Path, typer.Option(help="Written anew between its markers.")] = _DOCS
    / "benchmarks.md",
    pictures: Annotated[Path, typer.Option(help="A directory for them.")] = _DOCS / "benchmarks",
) -> None:
    """Draw the pictures, and write the tables."""
    report = together([read(file) for file in files])
    try:
        text = write(page.read_text(), report)
        pictures.mkdir(exist_ok=True)
        _draw(report, pictures)
        page.write_text(text)
    except MissingError as error:
        raise typer.BadParameter(
            f"{', '.join(map(str, files))}: nothing of {error}; "
            "run `python -m benchmarks` without naming loads"
        ) from None


def together(reports: Sequence[Report]) -> Report:
    """Return one report with the loads of all; everything else is taken from the first."""
    loads = {(load.load, load.cores): load for report in reports for load in report.loads}
    return replace(reports[0], loads=list(loads.values()))


def _draw(report: Report, directory: Path) -> None:
    for name, (title, names) in GROUPS.items():
        loads = [(load(report, one), pinned(report, one, 1)) for one in names]
        bars.draw(loads, title, directory, name)
    _draw_scaling(report, directory)
    _draw_reuse(report, directory)


def _draw_scaling(report: Report, directory: Path) -> None:
    reads, writes = series(report, READS_BY_TASKS), series(report, WRITES_BY_TASKS)
    throughput = [
        lines.Panel("point reads", reads, "q/s", lambda one: one.throughput, logarithmic=False),
        lines.Panel(
            "one-row writes", writes, "tx/s", lambda one: one.throughput, logarithmic=False
        ),
    ]
    latency = [
        lines.Panel("point reads", reads, "p99 in ms", lambda one: one.p99_ms),
        lines.Panel("one-row writes", writes, "p99 in ms", lambda one: one.p99_ms),
    ]
    title = "Throughput and latency with more and more tasks"
    lines.draw([throughput, latency], title, directory, "scaling")


def _draw_reuse(report: Report, directory: Path) -> None:
    panels = [
        lines.Panel(title, series(report, name), "p50 in ms", lambda one: one.p50_ms)
        for title, name in (("by schema", OPEN_OR_REUSE), ("by size of the file", BY_SIZE))
    ]
    title = "A point read through a connection of its own, or through one that stays open"
    lines.draw([panels], title, directory, "open-or-reuse")


if __name__ == "__main__":
    typer.run(main)
