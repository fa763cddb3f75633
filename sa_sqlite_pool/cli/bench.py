"""``sa-sqlite-pool bench FILE "SELECT …"``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from ..doctor.findings import plural
from ..errors import ConfigurationError, ForbiddenWriteError
from .contenders import Contender, Measured, contenders
from .files import FileArgument
from .output import JsonOption, bar, console, write_json

ROUNDS = 3

Results = dict[str, list[Measured]]


def bench(
    file: FileArgument,
    statement: Annotated[
        str, typer.Argument(metavar="STATEMENT", help="The statement to measure, such as a SELECT.")
    ],
    seconds: Annotated[
        float, typer.Option(min=0.01, help="How long each contender runs in a round.")
    ] = 1.0,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks read at the same time.")] = 10,
    json: JsonOption = False,
) -> None:
    """Compare how fast a statement runs: stock SQLAlchemy, this package, synchronous SQLAlchemy."""
    with bar("bench") as step, _left_as_found(file):
        rows, results = asyncio.run(_run(file, statement, seconds, tasks, step))
    if json:
        write_json(
            "bench",
            {
                "path": str(file),
                "statement": statement,
                "rows": rows,
                "rounds": ROUNDS,
                "seconds": seconds,
                "tasks": tasks,
                "sqlite_version": sqlite3.sqlite_version,
                "contenders": [
                    {
                        "name": name,
                        "per_second": round(median(one.per_second for one in measured), 1),
                        "process_us": round(median(one.process_us for one in measured), 1),
                    }
                    for name, measured in results.items()
                ],
            },
        )
    else:
        _show(rows, results)


async def _run(
    file: Path, statement: str, seconds: float, tasks: int, step: Callable[[int, int], None]
) -> tuple[int, Results]:
    async with contenders(file, statement) as ways:
        refusing = next(one for one in ways if one.name == "reader_engine")
        rows = await _first(refusing, statement)
        for contender in ways:
            await contender.once()
        results: Results = {contender.name: [] for contender in ways}
        for number in range(ROUNDS):
            for place, contender in enumerate(ways):
                results[contender.name].append(await contender.measure(seconds, tasks))
                step(number * len(ways) + place + 1, ROUNDS * len(ways))
        return rows, results


async def _first(contender: Contender, statement: str) -> int:
    """Return the number of rows read by a contender that refuses statements that can write."""
    try:
        return await contender.once()
    except (ResourceClosedError, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"bench measures a read, such as a SELECT, and this is none: {statement!r}"
        ) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.ProgrammingError) and "bindings" in str(error.orig):
            raise ConfigurationError(
                "bench passes no parameters: write values in their places in the statement"
            ) from error
        if not isinstance(error.orig, ForbiddenWriteError):
            raise
        raise ConfigurationError(
            f"bench measures what only reads, and nothing was changed by: {statement}"
        ) from error


@contextlib.contextmanager
def _left_as_found(file: Path) -> Iterator[None]:
    """Remove the log and its index if the readers, which cannot remove them, created them."""
    path = os.path.realpath(file)
    there = any(os.path.exists(f"{path}{side}") for side in ("-wal", "-shm"))
    try:
        yield
    finally:
        if not there and os.path.exists(f"{path}-shm"):
            # "When the last connection to a database closes, that connection does one last
            # checkpoint and then deletes the WAL" (https://www.sqlite.org/wal.html), if it can.
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(
                    sqlite3.connect(f"{Path(path).as_uri()}?mode=rw", uri=True)
                ) as last,
            ):
                last.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()


def _show(rows: int, results: Results) -> None:
    stock = median(one.per_second for one in results["stock"])
    table = Table(title=f"{plural(rows, 'row')} each time", title_justify="left")
    table.add_column("contender")
    for heading in ("reads/s", "times stock", "process time each"):
        table.add_column(heading, justify="right")
    for name, measured in results.items():
        rate = median(one.per_second for one in measured)
        cost = median(one.process_us for one in measured)
        table.add_row(name, f"{rate:,.0f}", f"{rate / stock:.1f}", f"{cost:,.0f} µs")
    console.print(table)
