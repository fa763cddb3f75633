"""The resources that the current thread has used."""

from __future__ import annotations

from threading import get_ident

from .clock import time

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_WHO = getattr(resource, "RUSAGE_THREAD", None)


# For how many seconds a reading of the processor time may be reused.
_FRESH_SECONDS = 0.000_25

CpuReading = tuple[int, float, float]
"""A thread, when its processor time was read (``perf_counter()``), and the processor time."""

_last: CpuReading = (0, 0.0, 0.0)


def read_cpu(now: float) -> CpuReading:
    """Return a reading for the current thread that is fresh ``now`` (``perf_counter()``).

    Reading the processor time is a system call of half a microsecond; the clock needs none.
    """
    global _last  # noqa: PLW0603 - threads may replace it at any time: each looks whose it is
    last, thread = _last, get_ident()
    if last[0] != thread or not 0.0 <= now - last[1] <= _FRESH_SECONDS:
        last = _last = thread, now, time.thread_time()
    return last


def cpu_seconds(reading: CpuReading, began: float) -> float:
    """Return the processor time of the current thread since ``began`` (``perf_counter()``).

    It may be too low by the age of ``reading``, which :func:`read_cpu` returned at that time.
    """
    _, at, seconds = reading
    return time.thread_time() - seconds - (began - at)


def disk_reads() -> float:
    """Return the blocks this thread has read from disk; if unknown, a different number each time.

    ``ru_inblock`` in https://man7.org/linux/man-pages/man2/getrusage.2.html
    """
    return time.monotonic() if _WHO is None else resource.getrusage(_WHO).ru_inblock
