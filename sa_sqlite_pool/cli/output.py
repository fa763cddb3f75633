"""The output of the command: results to stdout, progress and errors to stderr."""

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
    """The exit codes of all sub-commands. 0 means success, or nothing to mend."""

    WARNING = 1
    """A warning was found, or something blocked a checkpoint."""
    ERROR = 2
    """An error was found."""
    FAILED = 3
    """The operation or examination failed; stderr says why."""
    USAGE = 4
    """The command line is wrong."""
    INTERRUPTED = 130
    """Ctrl-C, as in shells."""
    UNREAD = 141
    """The program that read the output, for example ``head``, has exited; as in shells."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError: rich itself would exit with the code of a warning."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


console = _Console(highlight=False)


def while_read(command: Callable[P, None]) -> Callable[P, None]:
    """Return a sub-command that exits quietly when nothing reads its output any more.

    All output is flushed before it returns. A broken pipe has to be handled here, since Typer, too,
    would exit with the code of a warning.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                command(*args, **kwargs)
            finally:
                console.file.flush()
        except BrokenPipeError:
            # Otherwise, Python would hit the broken pipe again at exit, and report it:
            # https://docs.python.org/3/library/signal.html#note-on-sigpipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.UNREAD) from None

    return run


def write_any_text() -> None:
    """Make standard output accept characters that its encoding cannot represent.

    The bytes of file names that are invalid in the system's encoding are written unchanged, so a
    command with such a name can be copied; any other character is written in the form ``\\xe4``.
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
    """Write one line unwrapped, so a command in it can be copied from a terminal of any width."""
    console.print(text_of(text), soft_wrap=True)


def text_of(found: str) -> Text:
    """Return terminal text for a string that may contain names of databases and processes."""
    return Text(_harmless(found))


def _harmless(text: str) -> str:
    """Return the text with control characters escaped."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr during the block; show nothing if stderr is not a terminal.

    Yield a function to call with the amounts done and in total; until then, the bar just pulses.
    """
    stderr = Console(stderr=True)
    if not stderr.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


# Commands do not have them.
_TIMEOUT_OPTIONS = re.compile(r"raise (?:write|read)_timeout(?: or read_timeout)?")


def sentence(error: Exception) -> str:
    """Return the message of an error on one line, without the statement and links around it."""
    text = str(error)
    if isinstance(error, (exc.TimeoutError, TurnAlreadyHeldError, CommitUnknownError)):
        # the error's own message contains the holder, or what is unknown
        text = _TIMEOUT_OPTIONS.sub("run the command again", str(error.args[0]))
    elif isinstance(error, exc.DBAPIError):
        text = str(error.orig)
    return " ".join(text.split())


def fail(message: str, code: ExitCode) -> NoReturn:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):  # no reader, or disk full: the exit code still tells
            sys.stderr.write(f"sa-sqlite-pool: {_harmless(message)}\n")
    raise SystemExit(int(code))
