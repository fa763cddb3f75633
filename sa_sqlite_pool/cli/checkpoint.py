"""``sa-sqlite-pool checkpoint FILE``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from ..doctor.findings import size_text
from ..errors import ConfigurationError
from ..files.log_file import measure
from ..stats.log import Checkpoint, CheckpointMode, CheckpointOutcome
from .files import FileArgument, existing_database
from .output import ExitCode, JsonOption, write_json, write_line


def _known(mode: str) -> str:
    try:
        return CheckpointMode.parse(mode).value
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


# Not an enum: the oldest versions of Typer do not accept an enum member as the default.
ModeOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(mode.value for mode in CheckpointMode),
        callback=_known,
        help="passive waits for no reader; truncate empties the log, too.",
    ),
]

_SAYS = {
    CheckpointOutcome.MOVED_ALL: "the whole log is in the database, and its file is used again",
    CheckpointOutcome.TRUNCATED: "the whole log is in the database, and its file was cut",
    CheckpointOutcome.HELD_BACK: "a reader of an old state is in the way",
    CheckpointOutcome.BUSY: "another connection writes or runs a checkpoint",
    CheckpointOutcome.NOT_WAL: "the database has no log",
}
_IN_THE_WAY = frozenset({CheckpointOutcome.HELD_BACK, CheckpointOutcome.BUSY})


def checkpoint(
    file: FileArgument,
    mode: ModeOption = CheckpointMode.PASSIVE.value,
    json: JsonOption = False,
) -> None:
    """Checkpoint a database, in the write turn, while programs use it."""
    before = _log_size(file)
    result, after = asyncio.run(_checkpoint(file, mode))
    if json:
        write_json(
            "checkpoint",
            {
                "path": str(file),
                "mode": mode,
                "outcome": result.outcome.value,
                "held_back_by": result.held_back_by,
                "frames": result.frames,
                "moved": result.moved,
                "seconds": round(result.seconds, 6),
                "log_bytes_before": before,
                "log_bytes_after": after,
            },
        )
    else:
        write_line(f"{file}: {result.outcome.value.replace('_', ' ')}: {_SAYS[result.outcome]}")
        if result.held_back_by is not None:
            write_line(f"in the way: {result.held_back_by}")
        if result.outcome is not CheckpointOutcome.NOT_WAL:
            had = f"had {size_text(before)}, and " if after < before else ""
            write_line(f"the log {had}has {size_text(after)}")
    raise typer.Exit(ExitCode.WARNING if result.outcome in _IN_THE_WAY else 0)


async def _checkpoint(file: Path, mode: str) -> tuple[Checkpoint, int]:
    async with existing_database(file) as database:
        return await database.checkpoint(mode), _log_size(file)


def _log_size(file: Path) -> int:
    return measure(f"{os.path.realpath(file)}-wal").size
