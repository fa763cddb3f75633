"""The growth of the log beside readers whose snapshots overlap: the case that users complain about.

``python -m benchmarks.wal_growth --rounds 3 --seconds 12``: four readers, each of which takes one
snapshot of 400 ms after the other without a pause, and a writer with 500 rows per transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from .databases import files
from .measuring.environment import Environment
from .report.asked import asked_table
from .report.output import JsonOption, console, table, write_json
from .report.tables import median, print_environment, print_problems, with_spread, worst
from .running.rounds import rotated
from .wal import pages
from .wal.doors import Make, facade, stock
from .wal.growth import grow
from .wal.growth_results import GrowthReport, GrowthRun, GrowthSummary, asked
from .wal.readers import READERS


@dataclass(frozen=True, slots=True)
class Contender:
    """The door through which the database is opened, and the number of readers."""

    name: str
    make: Make
    readers: int


OURS = Contender("SQLiteDatabase", facade, READERS)
OURS_ALONE = Contender("SQLiteDatabase alone", facade, 0)
CONTENDERS = (
    Contender("stock", stock, READERS),
    OURS,
    Contender("stock alone", stock, 0),
    OURS_ALONE,
)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 3,
    seconds: Annotated[float, typer.Option(help="How long each of them writes.")] = 12.0,
    json_file: JsonOption = None,
) -> None:
    """Write beside readers, and watch the log."""
    report = _measure(rounds, seconds)
    _print(console(), report)
    write_json(report, json_file)
    if not report.books_balance:
        raise typer.Exit(1)


def _measure(rounds: int, seconds: float) -> GrowthReport:
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        environment = Environment.of(Path(directory))
        runs = list(_runs(Path(directory), rounds, seconds))
    of = {one.name: [run for run in runs if run.contender == one.name] for one in CONTENDERS}
    return GrowthReport(
        environment=environment,
        rounds=rounds,
        seconds=seconds,
        summaries=[GrowthSummary.of(found) for found in of.values()],
        asked=asked(of[OURS.name], of[OURS_ALONE.name]),
        runs=runs,
    )


def _runs(directory: Path, rounds: int, seconds: float) -> Iterator[GrowthRun]:
    template = directory / "pages.db"
    files.create(template, pages.fill)
    for round_ in range(rounds):
        for contender in rotated(CONTENDERS, round_):
            yield _run(contender, template, round_, seconds)


def _run(contender: Contender, template: Path, round_: int, seconds: float) -> GrowthRun:
    with TemporaryDirectory(dir=template.parent) as directory:
        database = files.copy(template, Path(directory))
        growing = grow(
            contender.make, database, readers=contender.readers, seconds=seconds, seed=round_
        )
        growth = asyncio.run(growing)
        return GrowthRun.of(contender.name, round_, growth, pages.transactions(database))


def _print(console: Console, report: GrowthReport) -> None:
    made = table(
        f"{pages.ROWS_A_TRANSACTION} rows a transaction, {READERS} readers with a snapshot each; "
        f"{report.seconds:g} s",
        "contender",
        "tx/s (min-max)",
        "largest log, MiB",
        "at the end",
        "reads",
        "wait p50, ms",
        "p99",
        "max",
        "errors",
    )
    for summary in report.summaries:
        made.add_row(*_cells(summary))
    console.print(made)
    print_problems(console, report.summaries, report.runs)
    console.print(asked_table(f"asked of {OURS.name}", report.asked))
    print_environment(console, report.environment, report.rounds)


def _cells(summary: GrowthSummary) -> Iterator[str]:
    yield summary.contender
    yield with_spread(summary.transactions_a_second, decimals=0)
    yield median(summary.largest_log_mib, decimals=1)
    yield median(summary.log_at_the_end_mib, decimals=1)
    yield median(summary.reads, decimals=0)
    yield median(summary.wait_p50_ms, decimals=1)
    yield median(summary.wait_p99_ms, decimals=1)
    yield worst(summary.wait_max_ms, decimals=1)
    yield f"{sum(summary.errors.values()):,}"


if __name__ == "__main__":
    typer.run(main)
