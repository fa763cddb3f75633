"""Where figures go: a console, and a file if one is asked for."""

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
"""Columns of the tables where there is no terminal to ask."""

JsonOption = Annotated[
    typer.FileTextWrite | None,
    typer.Option("--json", metavar="FILE", lazy=False, help="Write everything there, too."),
]


def console() -> Console:
    """As wide as the terminal, or as tables need where there is none."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def table(title: str, name: str, *figures: str) -> Table:
    """An empty table: a column of names, and figures to the right of it."""
    made = Table(title=title, title_justify="left", title_style="bold")
    made.add_column(name, no_wrap=True)
    for heading in figures:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def write_json(report: DataclassInstance, file: typer.FileTextWrite | None) -> None:
    """Everything of ``report``; nothing without a file."""
    if file is not None:
        json.dump(asdict(report), file, indent=2)
