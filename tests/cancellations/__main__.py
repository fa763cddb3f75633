"""The command: ``python -m tests.cancellations --count 100000 --seed 1``."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tests.commands import SeedOption, seed_or_time, show

from .run import EVERYTHING, MIXED_DOORS, Load, Result, mixed_load, run


class _GiveUp:
    """Ends the process after ``limit`` seconds, and says how far it came."""

    def __init__(self, limit: float, count: int) -> None:
        self._limit = limit
        self._count = count
        self._done = 0
        self._timer = threading.Timer(limit, self._end)
        self._timer.daemon = True
        self._timer.start()

    def note(self, cancellations: int) -> None:
        self._done += cancellations

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        typer.echo(
            f"\ngave up after {self._limit:g} s: {self._done} of {self._count} cancellations"
        )
        _exit(1)


def _exit(code: int) -> None:
    """At once: what hangs would keep the interpreter from ending."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _known(name: str) -> str:
    if name not in MIXED_DOORS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(MIXED_DOORS)}")
    return name


def main(
    count: Annotated[int, typer.Option(min=1, help="How many cancellations.")] = 1_500,
    seed: SeedOption = None,
    only_mixed: Annotated[
        bool, typer.Option("--only-mixed", help="Short writes and scans through one door.")
    ] = False,
    door: Annotated[
        str, typer.Option(callback=_known, help=f"For --only-mixed: {', '.join(MIXED_DOORS)}.")
    ] = "facade",
    limit: Annotated[float, typer.Option(help="Give up after so many seconds, 0: never.")] = 0,
) -> None:
    """Cancel tasks at random moments, and see that nothing is lost and nothing left behind."""
    seed = seed_or_time(seed)
    typer.echo(f"seed {seed}")
    load = mixed_load(door) if only_mixed else EVERYTHING
    show(_run(load, count=count, seed=seed, limit=limit))


def _run(load: Load, *, count: int, seed: int, limit: float) -> Result:
    give_up = _GiveUp(limit or threading.TIMEOUT_MAX, count)
    try:
        with (
            TemporaryDirectory(prefix="cancellations-") as directory,
            typer.progressbar(length=count, file=sys.stderr) as bar,
        ):

            def on_progress(cancellations: int) -> None:
                give_up.note(cancellations)
                bar.update(cancellations)

            return run(Path(directory), count=count, seed=seed, load=load, on_progress=on_progress)
    except AssertionError as error:
        typer.echo(f"FAILED: {error}", err=True)
        _exit(1)
        raise
    finally:
        give_up.cancel()


if __name__ == "__main__":
    typer.run(main)
