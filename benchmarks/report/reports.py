"""What ``python -m benchmarks --json`` wrote, read again."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError

from .results import Report


def read(file: Path) -> Report:
    """Raises :class:`typer.BadParameter` where it is something else."""
    try:
        return TypeAdapter(Report).validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise typer.BadParameter(
            f"{file} is no report of `python -m benchmarks`: {error}"
        ) from None
