"""Log messages, warnings and exceptions that would go unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from sqlalchemy.exc import SAWarning

_OF_OTHERS = (
    # A session on two engines commits one connection after the other. If the second commit is
    # cancelled, SQLAlchemy also rolls back the first, which has ended: with engines of any kind.
    ("transaction already deassociated from connection", SAWarning),
    # aiosqlite leaves a connection whose opening is cancelled to the garbage collector, which
    # Python reports since 3.13.
    ("unclosed database in <sqlite3.Connection", ResourceWarning),
)


class _Listener(logging.Handler):
    """A handler at the root: SQLAlchemy names loggers after the module of the pool's class."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        if _is_cancelled_close(record):
            return
        self._heard.append(f"{record.name} logs in {_task()}: {self._formatted(record)}")

    def _formatted(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:
            return f"{record.msg!r}, and its arguments have no repr:\n{traceback.format_exc()}"


def _is_cancelled_close(record: logging.LogRecord) -> bool:
    """Return whether SQLAlchemy logged an error while closing a connection, and re-raised it."""
    error = record.exc_info[1] if record.exc_info else None
    return record.msg == "Exception closing connection %r" and isinstance(
        error, asyncio.CancelledError
    )


def _task() -> str:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.current_thread().name if task is None else task.get_name()


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collect logged errors, warnings, and exceptions of destructors and threads in a list.

    Other handlers receive nothing meanwhile: pytest's keeps the records, and with them the
    connection that a record is about, with its file and threads.
    """
    heard: list[str] = []
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [_Listener(heard)]
    try:
        with _hooks(heard), _warnings(heard):
            yield heard
    finally:
        root.handlers = handlers


@contextlib.contextmanager
def _hooks(heard: list[str]) -> Iterator[None]:
    def note(raised: Any) -> None:
        lines = traceback.format_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)
        heard.append(f"raised in {_task()}: {''.join(lines)}")

    unraisable, in_thread = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = threading.excepthook = note
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, in_thread


@contextlib.contextmanager
def _warnings(heard: list[str]) -> Iterator[None]:
    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        heard.append(f"{message!r} in {_task()}:\n{''.join(traceback.format_stack())}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for text, category in _OF_OTHERS:
            warnings.filterwarnings("ignore", text, category)
        warnings.showwarning = note
        yield
