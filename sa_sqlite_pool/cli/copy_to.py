"""``sa-sqlite-pool copy-to FILE URL --metadata app.models:Base.metadata``."""

from __future__ import annotations

import asyncio
import importlib
import math
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from sqlalchemy import URL, MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from ..copying.api import copy_to as copy_database_to
from ..copying.columns.texts import unencodable
from ..copying.misfits import headline
from ..copying.report import CopyReport, MisfitsError, Phase, Progress
from ..errors import ConfigurationError, a_type
from ..postgresql.urls import server_url
from .files import FileArgument, existing_database
from .output import ExitCode, JsonOption, bar, console, write_json, write_line

_NAMES = {
    Phase.SNAPSHOT.value: "copying the file",
    Phase.CHECK.value: "checking all values",
    Phase.COPY.value: "copying",
    Phase.FINISH.value: "indexes, foreign keys",
    Phase.VERIFY.value: "reading back, comparing",
}


def copy_to(
    file: FileArgument,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="The PostgreSQL URL: postgresql+asyncpg://user@host/name."
        ),
    ],
    metadata: Annotated[
        str,
        typer.Option(
            metavar="MODULE:OBJECT",
            help="The models' metadata, such as app.models:Base.metadata.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check only, and report what would be copied.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Copy a database to PostgreSQL, while it is used: checked before, and compared after."""
    target, models = _target(url), _metadata(metadata)
    try:
        with ExitStack() as bars:
            progress = _Bars(bars)
            report = asyncio.run(_copy(file, target, models, progress, dry_run))
    except MisfitsError as error:
        report = error.report
    if json:
        write_json("copy-to", as_json(file, target, report))
    else:
        _show(report, file, target)
    raise typer.Exit(ExitCode.WARNING if report.misfits else 0)


async def _copy(
    file: Path, url: URL, metadata: MetaData, progress: Progress, dry_run: bool
) -> CopyReport:
    engine = create_async_engine(url)
    try:
        async with existing_database(file) as database:
            return await copy_database_to(
                database, engine, metadata, progress=progress, dry_run=dry_run
            )
    finally:
        await engine.dispose()


def _target(text: str) -> URL:
    """Return the URL, with an installed driver if the text names none."""
    try:
        return server_url(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def _metadata(name: str) -> MetaData:
    """Import the metadata, also from the current directory; a declarative base is accepted, too."""
    module, _, path = name.partition(":")
    if not module or module.startswith(".") or not path:
        raise typer.BadParameter(f"{name!r} is not MODULE:OBJECT, as app.models:Base.metadata is")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = reduce(getattr, path.split("."), importlib.import_module(module))
        found = getattr(found, "metadata", found)
    except (Exception, SystemExit) as error:  # a module of the application may raise anything
        raise typer.BadParameter(f"{name!r} cannot be imported: {_reason(error)}") from None
    if not isinstance(found, MetaData):
        raise typer.BadParameter(f"{name!r} is {a_type(found)}, and no MetaData")
    return found


def _reason(error: BaseException) -> str:
    """Return the error of an import as text; the message alone is enough for a missing name."""
    if isinstance(error, (ImportError, AttributeError)):
        return str(error)
    return f"it raised {type(error).__name__}: {error}"


class _Bars:
    """Progress bars, one after the other, one for each phase."""

    def __init__(self, bars: ExitStack) -> None:
        self._bars = bars
        self._phase = ""
        self._bar: Any = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._bars.close()
            self._bar, self._phase = self._bars.enter_context(bar(_NAMES[phase])), phase
        self._bar(done, total)


def as_json(file: Path, url: URL, report: CopyReport) -> dict[str, object]:
    """Return the report in the shape that docs/command.md promises."""
    return {
        "path": str(file),
        "target": url.render_as_string(hide_password=True),
        "copied": not (report.misfits or report.dry_run),
        "rows": report.rows,
        "tables": [asdict(table) for table in report.tables],
        "seconds": report.seconds,
        "warnings": list(report.warnings),
        "revisions": list(report.revisions),
        "misfits": [_misfits_json(group) for group in report.misfits],
    }


def _misfits_json(group: Any) -> dict[str, object]:
    first = [
        {
            "key": {name: _plain(value) for name, value in misfit.key.items()},
            "found": misfit.found,
            "why": misfit.why,
        }
        for misfit in group.first
    ]
    names = ("table", "column", "kind", "total")
    return {**{name: getattr(group, name) for name in names}, "first": first}


def _plain(value: object) -> object:
    """Return the value if JSON can represent it, else its repr: infinity, blobs, invalid UTF-8."""
    if isinstance(value, str):
        return value if unencodable(value) is None else repr(value)
    if value is None or (isinstance(value, (int, float)) and math.isfinite(value)):
        return value
    return repr(value)


def _show(report: CopyReport, file: Path, url: URL) -> None:
    for warning in report.warnings:
        write_line(f"warning: {warning}")
    if report.misfits:
        _show_misfits(report, file)
        return
    if report.dry_run:
        write_line(f"{file}: all values fit; {report.rows:,} rows would be copied")
        for table in report.tables:
            write_line(f"  {table.name}: {table.rows:,}")
        return
    _show_tables(report)
    seconds = sum(report.seconds.values())
    write_line(
        f"{report.rows:,} rows in {seconds:.1f} s, read back and compared; in all "
        f"{report.rows / seconds:,.0f} rows/s"
    )
    if report.revisions:
        write_line(f"Alembic's revision: {', '.join(report.revisions)}")
    write_line(f"next: point the application at {url!r}, and keep {file} until it is proven")


def _show_tables(report: CopyReport) -> None:
    shown = Table()
    shown.add_column("table")
    for heading in ("rows", "seconds", "rows/s"):
        shown.add_column(heading, justify="right")
    for table in report.tables:
        rate = f"{table.rows / table.seconds:,.0f}" if table.seconds else ""
        shown.add_row(table.name, f"{table.rows:,}", f"{table.seconds:.1f}", rate)
    console.print(shown)


def _show_misfits(report: CopyReport, file: Path) -> None:
    write_line(f"{file}: {headline(report.misfits)}; nothing was copied")
    for group in report.misfits:
        console.print()
        write_line(f"{group.place}: {group.kind}, {group.total:,}")
        for misfit in group.first:
            write_line(f"  {misfit}")
        if group.total > len(group.first):
            write_line(f"  and {group.total - len(group.first):,} more")
