"""The command: ``python -m benchmarks [LOAD ...] --rounds 5 --seconds 0.5 --json FILE``."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .asked.cores import asked_of_cores
from .asked.loads import asked_of_loads
from .loads import LOADS
from .loads.base import Load, Plan
from .measuring import cores as how_many
from .measuring import event_loops
from .measuring.environment import Environment
from .report.output import JsonOption, console, write_json
from .report.results import LoadResult, Report
from .report.tables import print_report
from .running.rounds import Effort, run_loads

_QUICK_SECONDS = 0.005
_QUICK_SCALE = 0.001
_LARGE_BYTES = 6 * 2**30
"""Space for a file of 2 GiB, its log while it is being filled, and some reserve."""


def known(names: list[str] | None) -> list[str]:
    """Return ``names`` without duplicates; all loads if there are none."""
    for name in names or []:
        if name not in LOADS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(LOADS)}")
    return list(dict.fromkeys(names or LOADS))


def room(large: bool) -> bool:
    """Return ``large``, but False if the disk has no room for a large file."""
    free = shutil.disk_usage(gettempdir()).free
    if large and free < _LARGE_BYTES:
        raise typer.BadParameter(
            f"needs {_LARGE_BYTES / 2**30:.0f} GiB in {gettempdir()}, which has "
            f"{free / 2**30:.1f}; free some, or set TMPDIR"
        )
    return large


def main(
    loads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOAD]...", callback=known, help=f"{', '.join(LOADS)}; or all."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 5,
    seconds: Annotated[float, typer.Option(help="How long it works each time.")] = 0.5,
    scale: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the published rows of `social`.")
    ] = 0.01,
    large: Annotated[
        bool, typer.Option("--large", callback=room, help="Open a file of 2 GiB, too.")
    ] = False,
    cores: Annotated[
        list[str] | None,
        typer.Option(
            help="Run on so many cores, or on `all`; more than once: on each in every round."
        ),
    ] = None,
    uvloop: Annotated[bool, typer.Option("--uvloop", help="Run uvloop's event loop.")] = False,
    beside: Annotated[
        int, typer.Option(min=0, help="Run beside so many processes that never rest.")
    ] = 0,
    contenders: Annotated[
        list[str] | None,
        typer.Option("--contender", help="Run these, stock and synchronous; or all."),
    ] = None,
    json_file: JsonOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round, a moment each: does it run?")
    ] = False,
) -> None:
    """Compare ways of using SQLite under asyncio, on the machine at hand."""
    plan = Plan(quick, large, min(scale, _QUICK_SCALE) if quick else scale)
    effort = Effort(1, _QUICK_SECONDS, warm_up_per_task=1) if quick else Effort(rounds, seconds)
    limits = tuple(dict.fromkeys(map(how_many.parse, cores or (how_many.ALL,))))
    run = event_loops.run_loop(uvloop=uvloop)
    effort = replace(effort, cores=limits, run=run, beside=beside)
    chosen = _chosen(loads or (), plan, contenders)
    gc.freeze()  # collections before runs need not traverse the imported modules
    report = _measure(chosen, plan, effort, event_loops.named(uvloop=uvloop))
    print_report(console(), report)
    write_json(report, json_file)
    if not report.books_balance:
        raise typer.Exit(1)


def _chosen(
    names: Sequence[str], plan: Plan, contenders: Sequence[str] | None
) -> dict[str, list[Load]]:
    """Return the loads of these names, with ``contenders``, or with all contenders."""
    loads = {name: LOADS[name](plan) for name in names}
    if plan.quick:
        loads = {name: [load.shrunk() for load in found] for name, found in loads.items()}
    if not contenders:
        return loads
    there = {one.name for found in loads.values() for load in found for one in load.contenders}
    if unknown := [name for name in contenders if name not in there]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {'; '.join(sorted(there))}")
    return {name: [load.among(contenders) for load in found] for name, found in loads.items()}


def _measure(
    loads: Mapping[str, Sequence[Load]], plan: Plan, effort: Effort, event_loop: str
) -> Report:
    with TemporaryDirectory(prefix="benchmarks-") as directory, _progress() as progress:
        environment = Environment.of(Path(directory), event_loop, effort.beside)
        results = [
            result
            for name, found in loads.items()
            for result in _run(name, found, effort, Path(directory), progress)
        ]
    # Quick runs with a handful of tasks are not judged, nor runs on a fully loaded machine.
    judged = not (plan.quick or effort.beside)
    asked = [*asked_of_loads(results), *asked_of_cores(results)] if judged else []
    return Report(environment, effort.rounds, plan.quick, plan.scale, results, asked)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[running]}"),
        console=Console(stderr=True),
        auto_refresh=False,  # the refreshing thread's processor time would count as the contender's
    )


def _run(
    name: str, loads: Sequence[Load], effort: Effort, directory: Path, progress: Progress
) -> list[LoadResult]:
    runs = effort.rounds * len(effort.cores)
    total = runs * sum(len(load.contenders) for load in loads)
    task = progress.add_task(name, total=total + 1, running="filling the tables")

    def on_run(contender: str) -> None:
        progress.update(task, advance=1, running=contender, refresh=True)

    results = run_loads(loads, effort, directory, on_run)
    progress.update(task, completed=total + 1, running="", refresh=True)
    return results


if __name__ == "__main__":
    typer.run(main)
