"""The line at which a task is now, or at which it asked, for messages that name the task."""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from types import CodeType, FrameType
from typing import NamedTuple

import greenlet

# Frames inside these show how a task waits, not which line of the application waits. They are names
# of modules, since an application may have folders of these names ("adapters/sqlalchemy/").
_LIBRARIES = frozenset(
    (
        *("sqlalchemy", "asyncio", "sa_sqlite_pool", "contextlib", "greenlet"),
        *("aiosqlite", "threading"),  # below a function that runs in a connection's thread
    )
)
# Frames of servers and frameworks around each request: they are no line of the application either.
_SERVERS = frozenset({"anyio", "fastapi", "hypercorn", "starlette", "uvicorn"})
_INSTALLED = frozenset({"dist-packages", "site-packages"})
_STANDARD = (sysconfig.get_path("stdlib") + os.sep, "<frozen ")
# File names of code that SQLAlchemy generates: 2.1's, and 2.0's, which is also ``python -c``'s.
_GENERATED = "<sqlalchemy generated"
_NAMELESS = "<string>"


class _Rank(enum.IntEnum):
    """How much a line says about where the application is."""

    NOT_SHOWN = 0
    INSTALLED = 1  # may be of a library that the application calls, or of the application itself
    OWN = 2


def describe_task(name: str | None) -> str:
    """Return ``task 'import-42'``, the task of that name, or of none."""
    return "code outside any task" if name is None else f"task {name!r}"


def whereabouts(task: asyncio.Task[object] | None) -> str | None:
    """Return ``jobs.py:88``, the innermost line of the task's own code; None if there is none.

    A suspended coroutine is followed through what it awaits. SQLAlchemy runs statements in a
    greenlet, whose frames do not lead back to the task: the last frame before it is the line
    that called SQLAlchemy, which is the line that people look for. A task that runs, and maybe
    blocks its event loop, is looked for on the stacks of the threads.
    """
    if task is None or task.done():
        return None
    coroutine = task.get_coro()
    frames: Sequence[FrameType] = ()
    if getattr(coroutine, "cr_running", False):
        frames = _running(_frame(coroutine))
    frames = frames or list(_suspended(coroutine))
    ranks = [_rank(frame) for frame in frames]
    if (best := max(ranks, default=_Rank.NOT_SHOWN)) is _Rank.NOT_SHOWN:
        return None
    frame = next(
        frame for frame, rank in zip(frames[::-1], ranks[::-1], strict=True) if rank is best
    )
    return _place(frame.f_code, frame.f_lineno)


def _suspended(awaited: object) -> Iterator[FrameType]:
    """Yield the frames of what a coroutine awaits, the innermost last."""
    while awaited is not None:
        if (frame := _frame(awaited)) is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)


def _running(outermost: FrameType | None) -> Sequence[FrameType]:
    """Return the frames within one that a thread runs, the innermost last.

    None in a greenlet, whose frames do not lead back to it.
    """
    for innermost in sys._current_frames().values():
        frames: list[FrameType] = []
        frame: FrameType | None = innermost
        while frame is not None:
            frames.append(frame)
            if frame is outermost:
                return frames[::-1]
            frame = frame.f_back
    return ()


class Caller(NamedTuple):
    """A line of the application. Its number is looked up only when it is shown."""

    code: CodeType
    instruction: int

    def __str__(self) -> str:
        """Return ``jobs.py:88``."""
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end and line is not None:
                return _place(self.code, line)
        return _place(self.code, None)


def caller() -> Caller | None:
    """Return the line of the application that called into this package.

    For use in a coroutine, whose frames lead back to the task, or in a greenlet started by a
    coroutine, as SQLAlchemy does for each call.
    """
    parent = greenlet.getcurrent().parent
    spawned_by = None if parent is None else parent.gr_frame
    if spawned_by is None:
        return _innermost(sys._getframe(1))
    # From the coroutine outwards: inside, there are a dozen frames of SQLAlchemy, and no other
    # unless the application's own function runs there. The first is that of greenlet_spawn().
    frame = spawned_by = spawned_by.f_back
    while frame is not None:
        code = frame.f_code
        if (in_library := _known.get(code.co_filename)) is None:
            in_library = _in_library(frame)
        if not in_library:
            break
        if code.co_name == "run_sync" and (found := _innermost(sys._getframe(1))):
            return found
        frame = frame.f_back
    if frame is spawned_by and (found := _innermost(sys._getframe(1))):
        return found
    return None if frame is None else _new(Caller, (frame.f_code, frame.f_lasti))


# A NamedTuple's own constructor is a function in Python.
_new = tuple.__new__


def caller_in_thread() -> Caller | None:
    """Return the line of the application's function that runs in a connection's thread."""
    return _innermost(sys._getframe(1))


def _innermost(frame: FrameType | None) -> Caller | None:
    """Return the first line of the application from ``frame`` on outwards."""
    while frame is not None and _in_library(frame):
        frame = frame.f_back
    return None if frame is None else Caller(frame.f_code, frame.f_lasti)


def _frame(awaited: object) -> FrameType | None:
    frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
    return frame if isinstance(frame, FrameType) else None


def _place(code: CodeType, line: int | None) -> str:
    """Return ``jobs.py:88``, or ``package/__init__.py:88``, since each package has one of those.

    Where the line is not known, as in a coroutine that Cython has compiled, it is the function's.
    """
    path = PurePath(code.co_filename)
    shown = PurePath(*path.parts[-2:]).as_posix() if path.name in _IN_EACH_PACKAGE else path.name
    return f"{shown}:{code.co_firstlineno if line is None else line}"


_IN_EACH_PACKAGE = ("__init__.py", "__main__.py")


_known: dict[str, bool] = {}  # whether a file is a library's; bounded by the number of files


def _rank(frame: FrameType) -> _Rank:
    """Return how much the line of a frame says about where the application is."""
    if _in_library(frame):
        return _Rank.NOT_SHOWN
    filename = frame.f_code.co_filename
    if (rank := _ranks.get(filename)) is None:
        parts = PurePath(filename).parts
        pairs = set(itertools.pairwise(parts))
        if any((above, name) in pairs for above in _INSTALLED for name in _SERVERS):
            rank = _Rank.NOT_SHOWN
        elif _INSTALLED.intersection(parts) or filename.startswith(_STANDARD):
            rank = _Rank.INSTALLED
        else:
            rank = _Rank.OWN
        _ranks[filename] = rank
    return rank


_ranks: dict[str, _Rank] = {}  # of files; bounded like `_known`


def _in_library(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    if filename == _NAMELESS:  # of each library, and of the application
        return _is_of_a_library(frame)
    if filename not in _known:
        _known[filename] = filename.startswith(_GENERATED) or _is_of_a_library(frame)
    return _known[filename]


def _is_of_a_library(frame: FrameType) -> bool:
    names = frame.f_globals
    name = names.get("__name__")
    if name == "__main__":  # of `python -m asyncio` the other name tells what runs
        name = getattr(names.get("__spec__"), "name", name)
    return str(name).partition(".")[0] in _LIBRARIES
