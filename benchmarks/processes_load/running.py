"""All processes of a run, started at the same instant."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

from .work import Load, Share, work

_MEET_SECONDS = 120
"""Time for all processes to open the database; one that fails must not block the others."""

_barriers: list[Barrier] = []
"""The barrier of this process, if it works for a run."""


def run_processes(database: Path, doors: Sequence[str], load: Load, round_: int) -> list[Share]:
    """Run a process for each of ``doors``; return their shares, or raise the error of a process."""
    # Forked from a server that has imported everything, if the system supports that.
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")
    context.set_forkserver_preload(["__main__", __name__])
    barrier = context.Barrier(len(doors), timeout=_MEET_SECONDS)
    with ProcessPoolExecutor(
        len(doors), mp_context=context, initializer=_know, initargs=(barrier,)
    ) as pool:
        shares = [
            pool.submit(_work, database, door, load, f"{round_} {number}")
            for number, door in enumerate(doors)
        ]
        return [share.result() for share in shares]


def _know(barrier: Barrier) -> None:
    _barriers[:] = [barrier]


def _work(database: Path, door: str, load: Load, seed: str) -> Share:
    [barrier] = _barriers
    try:
        return work(database, door, load, seed, barrier.wait)
    except BaseException:
        barrier.abort()
        raise
