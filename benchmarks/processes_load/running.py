"""All processes of a run, from the same instant on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

from .work import Load, Share, work

_MEET_SECONDS = 120
"""For all processes to open the database; one that fails must not keep the others."""

_barriers: list[Barrier] = []
"""The one of this process, where that works for a run."""


def run_processes(database: Path, doors: Sequence[str], load: Load, round_: int) -> list[Share]:
    """One process for each of ``doors``, and what each has done. Raises what one of them raises."""
    # Forked from a server that has imported everything, where the system has one.
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
