"""The least process time that any package could have behind SQLAlchemy's interface, on one core.

``python -m benchmarks.least``: for each target for this package's process time, given as a multiple
of synchronous SQLAlchemy's: the least contender, and ours.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ..measuring.cores import Cores
from ..measuring.environment import Environment
from ..report.output import JsonOption, console, write_json
from ..report.tables import print_environment, print_problems
from ..running.rounds import Effort, run_loads
from .kinds import loads
from .results import LeastReport, figures, table_of

_CORES: Cores = 1 if sys.platform == "linux" else None
"""Elsewhere, a process cannot be pinned."""


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = 5,
    seconds: Annotated[float, typer.Option(help="How long it works each time.")] = 0.3,
    json_file: JsonOption = None,
) -> None:
    """Compare the least process time that is possible with what was asked, and with ours."""
    gc.freeze()  # collections before runs need not traverse the imported modules
    effort = Effort(rounds, seconds, cores=(_CORES,))
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        environment = Environment.of(Path(directory))
        results = run_loads(loads(), effort, Path(directory), lambda _contender: None)
    report = LeastReport(environment, rounds, figures(results), results)
    out = console()
    out.print(table_of(report, _CORES))
    for result in results:
        print_problems(out, result.summaries, result.runs)
    print_environment(out, environment, rounds)
    write_json(report, json_file)
    if not report.right:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
