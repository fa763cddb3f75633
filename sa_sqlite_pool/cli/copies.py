"""``sa-sqlite-pool backup FILE TARGET`` and ``sa-sqlite-pool restore BACKUP FILE``."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from ..backup import restoring
from ..backup.copy_job import Progress
from ..doctor.findings import size_text
from .files import FileArgument, existing_database
from .output import JsonOption, bar, write_json, write_line


def backup(
    file: FileArgument,
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The copy; an older one is replaced.")
    ],
    json: JsonOption = False,
) -> None:
    """Copy a database while it is used. The copy is verified, and complete or absent."""
    began = time.monotonic()
    with bar("backup") as progress:
        asyncio.run(_backup(file, target, progress))
    seconds, size = time.monotonic() - began, target.stat().st_size
    if json:
        result = {"path": str(file), "target": str(target), "bytes": size}
        write_json("backup", {**result, "seconds": round(seconds, 6)})
    else:
        write_line(f"{target}: {size_text(size)}, verified")


async def _backup(file: Path, target: Path, progress: Progress) -> None:
    async with existing_database(file) as database:
        await database.backup(target, progress=progress)


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="A closed database.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The database to replace; it need not exist.")
    ],
    json: JsonOption = False,
) -> None:
    """Replace an unused database with a backup."""
    began = time.monotonic()
    with bar("restore") as progress:
        asyncio.run(restoring.restore(backup, file, progress=progress))
    seconds, size = time.monotonic() - began, file.stat().st_size
    if json:
        result = {"backup": str(backup), "path": str(file), "bytes": size}
        write_json("restore", {**result, "seconds": round(seconds, 6)})
    else:
        write_line(f"{file}: {size_text(size)}, from {backup}")
