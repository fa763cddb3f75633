"""The effect of checkpoints on a steady load of one-row writes.

``python -m benchmarks.checkpoint_latency --seconds 60``: the keeper of this package, SQLite's own
checkpoints within COMMIT, and, as the baseline, a log that is never checkpointed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from sa_sqlite_pool import SQLiteDatabase, WalSettings

from .databases import files
from .measuring.environment import Environment
from .report.output import JsonOption, console, table, write_json
from .report.tables import (
    median,
    print_environment,
    print_problems,
    print_settings,
    show_ratio,
    with_spread,
    worst,
)
from .wal.doors import Make, facade, stock
from .wal.latency import rows
from .wal.latency.latency import CLOSED, PACED, Load, race
from .wal.latency.results import LatencyReport, LatencyResult, LatencyRun, LatencySummary
from .ways import engines

_OFF = WalSettings(soft_limit=None)
_BASELINE = "no checkpoints"


def _no_checkpoints(database: Path) -> SQLiteDatabase:
    pragmas = {**engines.PRAGMAS, "wal_autocheckpoint": 0}
    return SQLiteDatabase(database, pragmas=pragmas, wal=_OFF)


def _in_commits(database: Path) -> SQLiteDatabase:
    """SQLite's own: a COMMIT that finds 1,000 pages or more in the log runs a checkpoint."""
    return SQLiteDatabase(database, pragmas=engines.PRAGMAS, wal=_OFF)


CONTENDERS: Mapping[str, Make] = {
    _BASELINE: _no_checkpoints,
    "keeper": facade,
    "within commits": _in_commits,
    "stock": stock,
}
LOADS = (CLOSED, PACED)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often all of it is done.")] = 1,
    seconds: Annotated[float, typer.Option(help="How long each contender writes.")] = 60.0,
    json_file: JsonOption = None,
) -> None:
    """Write one row a transaction, with and without checkpoints."""
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        environment = Environment.of(Path(directory))
        template = Path(directory) / "rows.db"
        files.create(template, rows.fill)
        loads = [_measure(load, template, rounds, seconds) for load in LOADS]
    report = LatencyReport(environment, rounds, seconds, loads)
    _print(console(), report)
    write_json(report, json_file)
    if not report.books_balance:
        raise typer.Exit(1)


def _measure(load: Load, template: Path, rounds: int, seconds: float) -> LatencyResult:
    runs = []
    for round_ in range(rounds):
        with TemporaryDirectory(dir=template.parent) as directory:
            racing = race(CONTENDERS, load, template, Path(directory), seconds=seconds, seed=round_)
            entrants = asyncio.run(racing)
            runs += [LatencyRun.of(one, round_, place) for place, one in enumerate(entrants)]
    of = {name: [one for one in runs if one.run.contender == name] for name in CONTENDERS}
    summaries = [LatencySummary.of(found, of[_BASELINE]) for found in of.values()]
    return LatencyResult(load.name, load.title, summaries, runs)


def _print(console: Console, report: LatencyReport) -> None:
    for load in report.loads:
        made = table(
            f"{load.load}: {load.title}; {report.seconds:g} s each",
            "contender",
            "tx/s",
            "p50 ms",
            "p99 ms (min-max)",
            f"p99 x {_BASELINE}",
            "max ms",
            "keeper's checkpoints",
            "largest log, MiB",
            "errors",
        )
        for one in load.summaries:
            made.add_row(*_cells(one))
        console.print(made)
        summaries = [one.summary for one in load.summaries]
        print_problems(console, summaries, (one.run for one in load.runs))
        console.print()
    print_settings(console, (one.summary for one in report.loads[0].summaries))
    print_environment(console, report.environment, report.rounds)


def _cells(one: LatencySummary) -> Iterator[str]:
    summary = one.summary
    yield summary.contender
    yield median(summary.throughput, decimals=0)
    yield median(summary.p50_ms, decimals=2)
    yield with_spread(summary.p99_ms, decimals=1)
    yield show_ratio(summary.p99_ratio)
    yield worst(summary.max_ms, decimals=1)
    yield median(one.checkpoints, decimals=0)
    yield median(one.largest_log_mib, decimals=1)
    yield f"{sum(summary.errors.values()):,}"


if __name__ == "__main__":
    typer.run(main)
