"""The command: ``python -m benchmarks [LOAD ...] --rounds 5 --json FILE --quick``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .environment import Environment
from .loads import LOADS
from .loads.base import Load
from .output import JsonOption, console, write_json
from .results import LoadResult, Report
from .rounds import run_load
from .tables import print_report

_QUICK_SHARE = 10


def _known(names: list[str] | None) -> list[str]:
    for name in names or []:
        if name not in LOADS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(LOADS)}")
    return list(dict.fromkeys(names or LOADS))


def main(
    loads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOAD]...", callback=_known, help=f"{', '.join(LOADS)}; or all."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 5,
    json_file: JsonOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round, a tenth of the work: does it run?")
    ] = False,
) -> None:
    """Compare this package's engines with SQLAlchemy's own, on the machine at hand."""
    chosen = [LOADS[name] for name in loads or ()]
    report = _measure(chosen, rounds=1 if quick else rounds, share=_QUICK_SHARE if quick else 1)
    print_report(console(), report)
    write_json(report, json_file)
    if not report.books_balance:
        raise typer.Exit(1)


def _measure(loads: Sequence[Load], *, rounds: int, share: int) -> Report:
    with TemporaryDirectory(prefix="benchmarks-") as directory, _progress() as progress:
        environment = Environment.of(Path(directory))
        results = [_run(load, rounds, share, Path(directory), progress) for load in loads]
    return Report(environment, rounds, results)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[running]}"),
        console=Console(stderr=True),
    )


def _run(load: Load, rounds: int, share: int, directory: Path, progress: Progress) -> LoadResult:
    total = rounds * len(load.contenders)
    task = progress.add_task(load.name, total=total + 1, running="filling the tables")

    def on_run(contender: str) -> None:
        progress.update(task, advance=1, running=contender)

    operations = load.operations // share
    result = run_load(
        load, operations=operations, rounds=rounds, directory=directory, on_run=on_run
    )
    progress.update(task, completed=total + 1, running="")
    return result


if __name__ == "__main__":
    typer.run(main)
