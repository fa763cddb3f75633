"""Where a piece of work runs: in the connection's thread, or on the event loop itself.

A hop to the thread and back costs many times what a short piece of SQLite's work does. Only what
certainly neither blocks nor syncs to disk may run inline. That is, for now, the end of a
transaction that has not written: SQLite drops a lock and a snapshot, a matter of two
microseconds, and no disk is touched. Every statement runs in the thread.
"""

from __future__ import annotations

import enum

from .worker import Worker


class Place(enum.Enum):
    THREAD = enum.auto()
    INLINE = enum.auto()


def place_of_end(worker: Worker, *, wrote: bool, doubtful: bool) -> Place:
    """Where COMMIT or ROLLBACK runs; ``doubtful``: a lock may belong to a server far away."""
    quick = not wrote and not doubtful
    return Place.INLINE if quick and worker.may_run_inline else Place.THREAD
