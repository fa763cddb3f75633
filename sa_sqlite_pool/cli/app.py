"""The command and its sub-commands, each a function in its own file."""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from typing import Annotated, NoReturn, cast

import typer
from sqlalchemy.exc import SQLAlchemyError

from .bench import bench
from .checkpoint import checkpoint
from .copies import backup, restore
from .copy_to import copy_to
from .doctor import doctor
from .output import ExitCode, fail, sentence, while_read, write_any_text, write_line
from .status import status

app = typer.Typer(
    name="sa-sqlite-pool",
    help="Examine, watch, copy and measure SQLite databases.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (doctor, status, checkpoint, backup, restore, copy_to, bench):
    app.command()(while_read(_command))


def _print_version(asked: bool) -> None:
    if asked:
        write_line(f"sa-sqlite-pool {version('sa-sqlite-pool')}, SQLite {sqlite3.sqlite_version}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the versions.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


# Depending on the version of Typer, the class belongs to click or to a copy of click.
_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


def run() -> NoReturn:
    """Run the command of this process, and exit. Each error is printed to stderr as one line."""
    write_any_text()
    try:
        code = app(standalone_mode=False, prog_name="sa-sqlite-pool")
    except _UsageError as error:
        fail(f"{_message(error)}. See: {_command_of(error)} --help", ExitCode.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        fail(sentence(error), ExitCode.FAILED)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        fail(f"{error}: this user has reached its limit of threads (ulimit -u)", ExitCode.FAILED)
    if code == ExitCode.INTERRUPTED:  # Typer may have caught the interrupt first
        fail("interrupted", ExitCode.INTERRUPTED)
    raise SystemExit(code or 0)


def _message(error: Exception) -> str:
    text = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    return " ".join(text.split()).rstrip(".")


def _command_of(error: Exception) -> str:
    return str(getattr(getattr(error, "ctx", None), "command_path", None) or "sa-sqlite-pool")
