"""What the command prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from sqlalchemy import exc

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")
]


class ExitCode(enum.IntEnum):
    """The exit codes of all sub-commands. 0 is for done, and for nothing to mend."""

    WARNING = 1
    """A warning was found, or something was in the way of a checkpoint."""
    ERROR = 2
    """An error was found."""
    FAILED = 3
    """It could not be done, nor examined; stderr says why."""
    USAGE = 4
    """The command line is wrong."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


console = Console(highlight=False)


def write_json(command: str, result: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps({"command": command, **result}, indent=2) + "\n")


def write_line(text: str | Text) -> None:
    """Write one line as it is: a command in it can be copied, however narrow the terminal is."""
    console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def bar() -> Progress:
    """Return a progress bar on stderr, which goes when it is done; none where nobody sees it."""
    stderr = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )


def sentence(error: Exception) -> str:
    """Return what an error says, in one line, without the statement and links around it."""
    text = str(error)
    if isinstance(error, exc.TimeoutError):  # the holder is in its own message
        text = str(error.args[0])
    elif isinstance(error, exc.DBAPIError):
        text = str(error.orig)
    return " ".join(text.split())


def fail(message: str, code: ExitCode) -> NoReturn:
    sys.stderr.write(f"sa-sqlite-pool: {message}\n")
    raise SystemExit(int(code))
