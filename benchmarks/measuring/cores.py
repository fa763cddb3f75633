"""The number of cores that a run may use: all, or the first of them.

On one core, threads do not compete for the interpreter lock; on two, they do: figures differ.
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
"""A number of cores; None for all."""

ALL = "all"


def parse(text: str) -> Cores:
    """Parse the value of ``--cores``; raise :class:`typer.BadParameter` if there are too few."""
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
    """Return the number of cores as text for the titles of tables."""
    return "all cores" if cores is None else "one core" if cores == 1 else f"{cores} cores"


@contextmanager
def limited(cores: Cores) -> Iterator[None]:
    """Run the block on ``cores`` cores, with all threads and processes that it starts."""
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
        """Pin each running thread: a mask belongs to one thread, and is inherited by its children.

        https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html
        """
        for thread in threading.enumerate():
            if thread.native_id is not None:
                with contextlib.suppress(ProcessLookupError):  # the thread has ended meanwhile
                    os.sched_setaffinity(thread.native_id, cores)
