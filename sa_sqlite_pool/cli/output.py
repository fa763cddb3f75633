"""What the command prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import codecs
import contextlib
import enum
import errno
import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from sqlalchemy import exc

from ..errors import CommitUnknownError, TurnAlreadyHeldError

P = ParamSpec("P")

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
    UNREAD = 141
    """The program that read the output has ended, ``head`` for example; as shells have it."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Have it raised: rich itself would exit with the code of a warning."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


console = _Console(highlight=False)


def while_read(command: Callable[P, None]) -> Callable[P, None]:
    """Return the sub-command, which ends quietly when nothing reads its output any more.

    All of it is written when it returns. That is known here alone: Typer ends at a broken pipe with
    the code of a warning, too.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                command(*args, **kwargs)
            finally:
                console.file.flush()
        except BrokenPipeError:
            # Or Python would meet it again at its exit, and say so:
            # https://docs.python.org/3/library/signal.html#note-on-sigpipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.UNREAD) from None

    return run


def write_any_text() -> None:
    """Have the standard output take names that its encoding does not have.

    Of files whose names are not in the encoding of the system the bytes are written as they are,
    so that a command with such a name can be copied; any other character is written as ``\\xe4``.
    """
    codecs.register_error(_ANY_TEXT, _replaced)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ANY_TEXT)


_ANY_TEXT = "sa_sqlite_pool.any_text"


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


def write_json(command: str, result: Mapping[str, object], indent: int | None = 2) -> None:
    # Not to sys.stdout, which is None if the process was started without one.
    console.file.write(json.dumps({"command": command, **result}, indent=indent) + "\n")


def write_line(text: str) -> None:
    """Write one line as it is: a command in it can be copied, however narrow the terminal is."""
    console.print(text_of(text), soft_wrap=True)


def text_of(found: str) -> Text:
    """Return a text, in which names of a database or a process may be, for the terminal."""
    return Text(_harmless(found))


def _harmless(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr within the block, and nothing where that is no terminal.

    Yields the function to call with what is done and what there is; until then it only moves.
    """
    stderr = Console(stderr=True)
    if not stderr.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def sentence(error: Exception) -> str:
    """Return what an error says, in one line, without the statement and links around it."""
    text = str(error)
    if isinstance(error, (exc.TimeoutError, TurnAlreadyHeldError, CommitUnknownError)):
        # who holds what, or what is not known, is in its own message
        text = str(error.args[0])
    elif isinstance(error, exc.DBAPIError):
        text = str(error.orig)
    return " ".join(text.split())


def fail(message: str, code: ExitCode) -> NoReturn:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # nothing reads it, or the disk is full: the code tells
            sys.stderr.write(f"sa-sqlite-pool: {_harmless(message)}\n")
    raise SystemExit(int(code))
