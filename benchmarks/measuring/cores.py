"""How many cores a run may use: all, or the first of them.

On one core no two threads fight for the interpreter lock, on two they do: figures differ.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager

import typer

Cores = int | None
"""A number of them; None for all."""

ALL = "all"


def parse(text: str) -> Cores:
    """The value of ``--cores``; raises :class:`typer.BadParameter` where there are not so many."""
    if text == ALL:
        return None
    if not text.isdecimal() or not int(text):
        raise typer.BadParameter(f"{text!r} is neither a number of cores nor {ALL!r}")
    if sys.platform != "linux":
        raise typer.BadParameter(
            "this system has no os.sched_setaffinity() to pin a process with; leave --cores out "
            "(`make bench CORES=all`)"
        )
    if int(text) > (found := len(os.sched_getaffinity(0))):
        raise typer.BadParameter(f"{text} cores are more than this process may use: {found}")
    return int(text)


def named(cores: Cores) -> str:
    """As titles of tables have it."""
    return "all cores" if cores is None else "one core" if cores == 1 else f"{cores} cores"


@contextmanager
def limited(cores: Cores) -> Iterator[None]:
    """Run the block on so many cores, with all threads and processes that it starts."""
    if cores is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    _pin(set(sorted(before)[:cores]))
    try:
        yield
    finally:
        _pin(before)


if sys.platform == "linux":

    def _pin(cores: Set[int]) -> None:
        """Each thread that runs: a mask is one thread's, and is handed on to what it starts.

        https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html
        """
        for thread in threading.enumerate():
            if thread.native_id is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.sched_setaffinity(thread.native_id, cores)
