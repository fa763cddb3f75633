"""``sa-sqlite-pool status FILE``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from ..doctor.header import check_regular
from ..publishing.asking import SECONDS
from ..publishing.overview import Overview, look_at
from .files import FileArgument
from .output import JsonOption, console, write_json
from .status_view import frame

WatchOption = Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")]
IntervalOption = Annotated[
    float, typer.Option(min=0.1, max=3600.0, help="Seconds between updates, with --watch.")
]


def status(
    file: FileArgument,
    watch: WatchOption = False,
    interval: IntervalOption = 1.0,
    json: JsonOption = False,
) -> None:
    """Show which tasks write, wait and read now, in all processes that use a database."""
    check_regular(str(file))
    database = os.path.realpath(file)
    if json and watch:
        with contextlib.suppress(KeyboardInterrupt):
            for overview in _looks(database, interval):
                write_json("status", _result(file, overview), indent=None)
                console.file.flush()
    elif json:
        write_json("status", _result(file, look_at(database)))
    elif watch and console.is_terminal and not console.is_dumb_terminal:
        _watch(database, interval)
    else:
        console.print(frame(look_at(database)))


def _result(file: Path, overview: Overview) -> dict[str, object]:
    return {"path": str(file), **overview.as_dict()}


def _watch(database: str, interval: float) -> None:
    before: Overview | None = None
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, auto_refresh=False) as live,
    ):
        for overview in _looks(database, interval):
            live.update(frame(overview, before), refresh=True)
            before = overview


def _looks(database: str, interval: float) -> Iterator[Overview]:
    due = time.monotonic()
    while True:
        yield look_at(database, min(interval, SECONDS))
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
