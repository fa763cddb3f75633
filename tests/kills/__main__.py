"""The command: ``python -m tests.kills --seconds 60 --processes 6 --seed 1``."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from .run import run


def main(
    seconds: Annotated[float, typer.Option(min=0, help="How long the processes work.")] = 20,
    processes: Annotated[int, typer.Option(min=1, help="How many work at the same time.")] = 6,
    seed: Annotated[
        int | None, typer.Option(help="Of the random draws; by default the time.")
    ] = None,
) -> None:
    """Kill processes that write one file, and see that nothing is lost and nobody is held up."""
    seed = time.time_ns() % 1_000_000 if seed is None else seed
    typer.echo(f"SQLite {sqlite3.sqlite_version}, seed {seed}")
    try:
        with (
            TemporaryDirectory(prefix="kills-") as directory,
            typer.progressbar(length=round(1_000 * seconds), file=sys.stderr) as bar,
        ):
            result = run(
                Path(directory),
                seconds=seconds,
                processes=processes,
                seed=seed,
                on_progress=lambda elapsed: bar.update(round(1_000 * elapsed)),
            )
    except AssertionError as error:
        typer.echo(f"FAILED: {error}", err=True)
        raise typer.Exit(1) from None
    for name, value in asdict(result).items():
        typer.echo(f"{json.dumps(name)}: {json.dumps(value)}")
    if result.stalls:
        typer.echo(f"FAILED: {', '.join(result.stalls)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
