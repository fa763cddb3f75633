"""The resources that the current thread has used."""

from __future__ import annotations

import time

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_WHO = getattr(resource, "RUSAGE_THREAD", None)


def disk_reads() -> float:
    """Return the blocks this thread has read from disk; if unknown, another number each time.

    ``ru_inblock`` of https://man7.org/linux/man-pages/man2/getrusage.2.html
    """
    return time.monotonic() if _WHO is None else resource.getrusage(_WHO).ru_inblock
