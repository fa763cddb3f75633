"""``sa-sqlite-pool restore BACKUP FILE``."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from ..backup import restoring
from ..doctor.findings import size_text
from .output import JsonOption, bar, write_json, write_line


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="A closed database.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The database to replace; it need not exist.")
    ],
    json: JsonOption = False,
) -> None:
    """Put a backup in the place of a database that no process uses."""
    began = time.monotonic()
    with bar("restore") as progress:
        asyncio.run(restoring.restore(backup, file, progress=progress))
    seconds, size = time.monotonic() - began, file.stat().st_size
    if json:
        result = {"backup": str(backup), "path": str(file), "bytes": size}
        write_json("restore", {**result, "seconds": round(seconds, 6)})
    else:
        write_line(f"{file}: {size_text(size)}, from {backup}")
