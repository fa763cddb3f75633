"""Several processes that write to the same file: transaction times, and each process's share.

``python -m benchmarks.processes --rounds 3 --seconds 10``: six processes, as many as a server has
workers, with four tasks each, which write one row per transaction and hold it open for 2 ms. All
start at the same instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from .databases import files
from .loads.one_row_writes import fill, moved
from .measuring.environment import Environment
from .processes_load.doors import FACADE, STOCK, SWAP_IN
from .processes_load.results import (
    ProcessesReport,
    ProcessesRun,
    ProcessesSummary,
    asked_alone,
    asked_with_outsider,
)
from .processes_load.running import run_processes
from .processes_load.work import Load
from .report.asked import asked_table
from .report.output import JsonOption, console, table, write_json
from .report.tables import (
    median,
    print_environment,
    print_problems,
    settings_line,
    show_ratio,
    with_spread,
    worst,
)
from .running.rounds import rotated

WITH_OUTSIDER = "with an outsider"


@dataclass(frozen=True, slots=True)
class Contender:
    """One contender; ``doors(n)`` gives the door through which each of ``n`` processes opens."""

    name: str
    doors: Callable[[int], list[str]]


CONTENDERS = (
    Contender(STOCK, lambda processes: [STOCK] * processes),
    Contender(FACADE, lambda processes: [FACADE] * processes),
    Contender(SWAP_IN, lambda processes: [SWAP_IN] * processes),
    Contender(WITH_OUTSIDER, lambda processes: [*[FACADE] * (processes - 1), STOCK]),
)


def main(
    processes: Annotated[int, typer.Option(min=2, help="How many write at once.")] = 6,
    tasks: Annotated[int, typer.Option(min=1, help="Of each of them.")] = 4,
    hold: Annotated[float, typer.Option(min=0, help="Of a transaction, in milliseconds.")] = 2.0,
    seconds: Annotated[float, typer.Option(help="How long each contender writes.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 3,
    json_file: JsonOption = None,
) -> None:
    """Write one file from several processes, and see who waits for how long."""
    load = Load(tasks, hold / 1000, seconds)
    report = _measure(load, processes, rounds)
    _print(console(), report)
    write_json(report, json_file)
    if not report.books_balance:
        raise typer.Exit(1)


def _measure(load: Load, processes: int, rounds: int) -> ProcessesReport:
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        environment = Environment.of(Path(directory))
        total = rounds * len(CONTENDERS)
        running = _runs(Path(directory), load, processes, rounds)
        shown = track(running, "processes", total, console=Console(stderr=True))
        runs = list(shown)
    of = {one.name: [run for run in runs if run.contender == one.name] for one in CONTENDERS}
    summaries = {name: ProcessesSummary.of(found, of[STOCK]) for name, found in of.items()}
    return ProcessesReport(
        environment=environment,
        rounds=rounds,
        processes=processes,
        tasks=load.tasks,
        hold_ms=load.hold_s * 1000,
        seconds=load.seconds,
        summaries=list(summaries.values()),
        asked=[
            *asked_alone(summaries[FACADE]),
            *asked_alone(summaries[SWAP_IN]),
            *asked_with_outsider(summaries[WITH_OUTSIDER]),
        ],
        runs=runs,
    )


def _runs(directory: Path, load: Load, processes: int, rounds: int) -> Iterator[ProcessesRun]:
    template = directory / "processes.db"
    files.create(template, fill)
    for round_ in range(rounds):
        for place, contender in enumerate(rotated(CONTENDERS, round_)):
            yield _run(contender, template, load, processes, round_, place)


def _run(
    contender: Contender, template: Path, load: Load, processes: int, round_: int, place: int
) -> ProcessesRun:
    with TemporaryDirectory(dir=template.parent) as directory:
        database = files.copy(template, Path(directory))
        shares = run_processes(database, contender.doors(processes), load, round_)
        return ProcessesRun.of(
            contender.name, round_, place, shares, seconds=load.seconds, found=moved(database)
        )


def _print(console: Console, report: ProcessesReport) -> None:
    made = table(
        f"{report.processes} processes x {report.tasks} tasks, {report.hold_ms:g} ms inside each "
        f"transaction; {report.seconds:g} s",
        "contender",
        "tx/s (min-max)",
        f"x {STOCK}",
        "p50 ms",
        "p99 ms",
        f"p99 x {STOCK}",
        "max",
        "least/most",
        "lag p99 ms",
        "errors",
    )
    for summary in report.summaries:
        made.add_row(*_cells(summary))
    console.print(made)
    print_problems(console, report.summaries, report.runs)
    console.print(asked_table("asked of this package", report.asked))
    for line in dict.fromkeys(_settings(report)):
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    print_environment(console, report.environment, report.rounds)


def _cells(summary: ProcessesSummary) -> Iterator[str]:
    yield summary.contender
    yield with_spread(summary.throughput, decimals=0)
    yield show_ratio(summary.throughput_ratio)
    yield median(summary.p50_ms, decimals=1)
    yield with_spread(summary.p99_ms, decimals=0)
    yield show_ratio(summary.p99_ratio)
    yield worst(summary.max_ms, decimals=0)
    yield f"{summary.evenness.least:.2f}"
    yield median(summary.loop_lag_p99_ms, decimals=2)
    yield f"{sum(summary.errors.values()):,}"


def _settings(report: ProcessesReport) -> Iterator[str]:
    for run in report.runs:
        for door, settings in run.settings.items():
            yield f"{door}: {settings_line(settings)}"


if __name__ == "__main__":
    typer.run(main)
