"""The log over an hour of mixed work, in a picture.

``python -m benchmarks.wal_hour --compress 20``: the hour passes in three minutes, once for a stock
engine and once for this package, with its own limits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from sa_sqlite_pool import WalSettings

from .databases import files
from .measuring.environment import Environment
from .report.output import JsonOption, console, table, write_json
from .report.tables import print_environment, print_problems
from .wal import pages
from .wal.doors import Make, facade, stock
from .wal.hour.hour import Hour, live
from .wal.hour.phases import HOUR
from .wal.hour.picture import draw
from .wal.hour.results import HourReport, HourRun

_PICTURE = Path("docs") / "wal_hour.png"
_MINUTE_S = 60


def main(
    compress: Annotated[
        float, typer.Option(min=1, help="How many times faster than the clock the hour passes.")
    ] = 20.0,
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = _PICTURE,
    json_file: JsonOption = None,
) -> None:
    """Live an hour with each engine, and draw how large the log was."""
    with TemporaryDirectory(prefix="benchmarks-") as directory:
        environment = Environment.of(Path(directory))
        template = Path(directory) / "pages.db"
        files.create(template, pages.fill)
        theirs = _live(stock, template, compress)
        with _logged() as logged:
            ours = _live(facade, template, compress)
    draw(picture, _title(compress), stock=theirs, ours=ours, settings=WalSettings())
    runs = [HourRun.of("stock", theirs), HourRun.of("SQLiteDatabase", ours)]
    report = HourReport(environment, compress, runs, logged)
    _print(report)
    write_json(report, json_file)


def _live(make: Make, template: Path, compress: float) -> Hour:
    with TemporaryDirectory(dir=template.parent) as directory:
        database = files.copy(template, Path(directory))
        return asyncio.run(live(make, database, HOUR, _MINUTE_S / compress))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the package's log messages while the block runs, instead of showing them."""
    lines: list[str] = []
    logger = logging.getLogger("sa_sqlite_pool")
    handler = _Lines(lines)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.levelname}: {record.getMessage()}")


def _title(compress: float) -> str:
    return (
        f"Size of the write-ahead log: an hour of mixed work, {compress:g} times faster; "
        "default limits"
    )


def _print(report: HourReport) -> None:
    out = console()
    made = table(
        f"an hour in {_MINUTE_S / report.compress:.1f} minutes",
        "contender",
        "largest log, MiB",
        "at the end",
        "writes",
        "p99 ms",
        "imports",
        "reads",
        "wait p99, ms",
        "max",
        "errors",
    )
    for run in report.runs:
        made.add_row(*_cells(run))
    out.print(made)
    print_problems(out, report.runs)
    for line in report.logged:
        out.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    print_environment(out, report.environment, 1)


def _cells(run: HourRun) -> Iterator[str]:
    yield run.contender
    yield f"{run.largest_log_mib:,.1f}"
    yield f"{run.log_at_the_end_mib:,.1f}"
    yield f"{run.writes:,}"
    yield f"{run.write_p99_ms:,.1f}"
    yield f"{run.imports:,}"
    yield f"{run.reads:,}"
    yield f"{run.wait_p99_ms:,.1f}"
    yield f"{run.wait_max_ms:,.1f}"
    yield f"{sum(run.errors.values()):,}"


if __name__ == "__main__":
    typer.run(main)
