"""The output of figures: to a console, and to a file if requested."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PIPED_WIDTH = 230
"""The width of tables in columns if the output is no terminal."""

JsonOption = Annotated[
    typer.FileTextWrite | None,
    typer.Option("--json", metavar="FILE", lazy=False, help="Write everything there, too."),
]


def console() -> Console:
    """Return a console as wide as the terminal, or as the tables need if there is none."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def table(title: str, name: str, *figures: str) -> Table:
    """Return an empty table: a column of names, followed by columns of figures."""
    made = Table(title=title, title_justify="left", title_style="bold")
    made.add_column(name, no_wrap=True)
    for heading in figures:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def write_json(report: DataclassInstance, file: typer.FileTextWrite | None) -> None:
    """Write all of ``report`` to ``file``; do nothing without a file."""
    if file is not None:
        json.dump(asdict(report), file, indent=2)
