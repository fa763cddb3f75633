"""The size of the log file, measured from outside.

It is measured with ``stat`` alone: opening and closing a file of a database drops the locks that
SQLite has on it in this process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

MIB = 1024 * 1024

INTERVAL_S = 0.02


def log_size(database: Path) -> int:
    """Return the size of the ``-wal`` file in bytes; 0 if there is none."""
    try:
        return database.with_name(f"{database.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def sampled(database: Path) -> Iterator[list[tuple[float, int]]]:
    """Record pairs of time (``perf_counter()``) and size every 20 ms while the block runs.

    A thread measures them, since a busy event loop would miss the peaks.
    """
    samples: list[tuple[float, int]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(INTERVAL_S):
            samples.append((perf_counter(), log_size(database)))

    thread = threading.Thread(target=sample, name="log size")
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
        samples.append((perf_counter(), log_size(database)))
