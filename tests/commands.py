"""Helpers shared by the commands of the campaigns: their options and their output.

Not in ``campaigns.py``, so processes that start while others wait import less.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NoReturn, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result_co = TypeVar("Result_co", bound="DataclassInstance", covariant=True)

OnProgress = Callable[[float], object]
"""Called with the seconds since the last call."""

SecondsOption = Annotated[float, typer.Option(min=0, help="How long the processes work.")]
ProcessesOption = Annotated[int, typer.Option(min=1, help="How many work at the same time.")]
SeedOption = Annotated[int | None, typer.Option(help="Of the random draws; by default the time.")]


class Run(Protocol[Result_co]):
    """A campaign of several processes. It raises ``AssertionError`` for anything wrong."""

    def __call__(
        self,
        directory: Path,
        *,
        seconds: float,
        processes: int,
        seed: int,
        on_progress: OnProgress,
    ) -> Result_co: ...


def carry_out(
    run: Run[Result_co], name: str, *, seconds: float, processes: int, seed: int | None
) -> Result_co:
    """Run a campaign in a new directory, with a progress bar; print its result or its failure."""
    seed = seed_or_time(seed)
    typer.echo(f"SQLite {sqlite3.sqlite_version}, seed {seed}")
    try:
        with (
            TemporaryDirectory(prefix=f"{name}-") as directory,
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
        fail(str(error))
    show(result)
    return result


def seed_or_time(seed: int | None) -> int:
    return time.time_ns() % 1_000_000 if seed is None else seed


def show(result: DataclassInstance) -> None:
    """Print one line for each figure."""
    for name, value in asdict(result).items():
        typer.echo(f"{json.dumps(name)}: {json.dumps(value)}")


def fail(reason: str) -> NoReturn:
    typer.echo(f"FAILED: {reason}", err=True)
    raise typer.Exit(1)
