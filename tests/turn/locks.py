"""Locks on files, as tests observe them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.turn import lock_file
from sa_sqlite_pool.turn.file_requests import FileLockRequest
from sa_sqlite_pool.turn.file_turn import FileTurn

fcntl = pytest.importorskip("fcntl", reason="there is no flock() here")


class Calls:
    """Counts calls of ``flock()``, which still takes effect, unless ``fail`` is set and raised.

    Only files of the same test count: a thread left waiting by an earlier test may wake up.
    """

    LOCK_EX, LOCK_NB, LOCK_UN = 2, 4, 8

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.count = 0
        self.fail: OSError | None = None

    def flock(self, descriptor: int, operation: int) -> None:
        if self._counts(descriptor):
            self.count += 1
            if self.fail is not None:
                raise self.fail
        fcntl.flock(descriptor, operation)

    def _counts(self, descriptor: int) -> bool:
        inode = os.fstat(descriptor).st_ino
        with os.scandir(self._directory) as files:
            return any(file.inode() == inode for file in files)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Count the calls of ``flock()``."""
    counting = Calls(tmp_path)
    monkeypatch.setattr(lock_file, "fcntl", counting)
    return counting


def blocked(path: Path, *names: str) -> int:
    """Return how many threads of any process wait in the kernel for the turn or the line."""
    files = [Path(f"{path}-{name}") for name in names or ("turn", "line")]
    inodes = [f":{file.stat().st_ino} " for file in files if file.exists()]
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and inode in line for line in lines for inode in inodes)


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for an act of another thread or process, while no loop runs."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "it never came to hold"
        os.sched_yield()


def waiting_threads() -> set[threading.Thread]:
    """Return the threads that wait for other processes, in this test or an earlier one."""
    threads = threading.enumerate()
    return {thread for thread in threads if thread.name == "sa_sqlite_pool-file-turn"}


@contextlib.contextmanager
def other_process(path: Path) -> Iterator[FileLockRequest]:
    """Hold the turn, as another process that uses the package does."""
    request = FileTurn(str(path)).acquire_nowait()
    assert request is not None
    with request:
        yield request


def is_free(path: Path) -> bool:
    """Return whether a newly arriving process would acquire the turn at once."""
    request = FileTurn(str(path)).acquire_nowait()
    if request is not None:
        request.release()
    return request is not None
