"""The processor time of a thread, which is rarely read."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from sa_sqlite_pool.system import resources
from sa_sqlite_pool.system.clock import time
from sa_sqlite_pool.system.resources import CpuReading, cpu_seconds, read_cpu


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the readings of the processor time so far; each is a second after the previous one."""
    found: list[float] = []

    def thread_time() -> float:
        found.append(float(len(found)))
        return found[-1]

    monkeypatch.setattr(time, "thread_time", thread_time)
    monkeypatch.setattr(resources, "_last", (0, 0.0, 0.0))
    return found


def in_thread(function: Callable[[], CpuReading]) -> CpuReading:
    """Call ``function`` in another thread."""
    found: list[CpuReading] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_fresh_reading_is_used_again(reads: list[float]) -> None:
    """Consecutive runs share one reading; later ones do not."""
    fresh = resources._FRESH_SECONDS
    first = read_cpu(100.0)
    assert read_cpu(100.0 + fresh / 2) is first
    assert read_cpu(100.0 + 2 * fresh) is not first
    assert read_cpu(99.0) is not first  # another clock
    assert len(reads) == 3


def test_a_thread_has_its_own(reads: list[float]) -> None:
    """The processor time of another thread is not used."""
    mine = read_cpu(100.0)
    theirs = in_thread(lambda: read_cpu(100.0))
    assert theirs[0] != mine[0]
    assert read_cpu(100.0) is not mine
    assert len(reads) == 3


def test_what_was_before_the_begin_does_not_count(reads: list[float]) -> None:
    """At most the time between the reading and the beginning is attributed to earlier work."""
    reading = read_cpu(100.0)
    assert reads == [0.0]
    assert cpu_seconds(reading, began=100.25) == 0.75
