"""The command: ``python -m tests.cancellations --count 100000 --seed 1``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

import typer

from tests.commands import SeedOption, seed_or_time, show

from .loops.closing import ClosingResult, run_closing
from .loops.kinds import other_loops
from .run import EVERYTHING, MIXED_DOORS, Result, mixed_load, run

R = TypeVar("R", Result, ClosingResult)


class _GiveUp:
    """Ends the process after ``limit`` seconds, and reports its progress."""

    def __init__(self, limit: float, count: int) -> None:
        self._limit = limit
        self._count = count
        self._done = 0
        self._timer = threading.Timer(limit, self._end)
        self._timer.daemon = True
        self._timer.start()

    def note(self, done: int) -> None:
        self._done += done

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        typer.echo(f"\ngave up after {self._limit:g} s: {self._done} of {self._count} done")
        _exit(1)


def _exit(code: int) -> None:
    """Exit at once: a task that hangs would keep the interpreter from exiting."""
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
    loops: Annotated[
        int, typer.Option(min=1, help="How many event loops share the work, each in a thread.")
    ] = 1,
    closings: Annotated[
        int, typer.Option(help="Instead, close so many databases while all loops use them.")
    ] = 0,
    limit: Annotated[float, typer.Option(help="Give up after so many seconds, 0: never.")] = 0,
) -> None:
    """Cancel tasks at random moments, and see that nothing is lost and nothing left behind."""
    seed = seed_or_time(seed)
    typer.echo(f"seed {seed}")
    others = other_loops(loops - 1, seed)
    if closings:
        close = partial(run_closing, rounds=closings, seed=seed, others=others)
        show(_within(limit, close, closings))
    else:
        load = mixed_load(door) if only_mixed else EVERYTHING
        cancel = partial(run, count=count, seed=seed, load=load, others=others)
        show(_within(limit, cancel, count))


def _within(limit: float, campaign: Callable[..., R], length: int) -> R:
    """Run the campaign in a new directory, with a progress bar."""
    give_up = _GiveUp(limit or threading.TIMEOUT_MAX, length)
    try:
        with (
            TemporaryDirectory(prefix="cancellations-") as directory,
            typer.progressbar(length=length, file=sys.stderr) as bar,
        ):

            def on_progress(done: int) -> None:
                give_up.note(done)
                bar.update(done)

            return campaign(Path(directory), on_progress=on_progress)
    except AssertionError as error:
        typer.echo(f"FAILED: {error}", err=True)
        _exit(1)
        raise
    finally:
        give_up.cancel()


if __name__ == "__main__":
    typer.run(main)
