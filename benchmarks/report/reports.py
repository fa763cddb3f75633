"""Reading of reports written by ``python -m benchmarks --json``."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError

from .results import Report


def read(file: Path) -> Report:
    """Return the report in ``file``; raise :class:`typer.BadParameter` if it contains none."""
    try:
        return TypeAdapter(Report).validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise typer.BadParameter(
            f"{file} is no report of `python -m benchmarks`: {error}"
        ) from None
