"""Whether a connection that comes back is of any use to the next that gets it."""

from __future__ import annotations

import weakref
from typing import Protocol

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..execution.connection_thread import ConnectionThread
from ..settings import Role
from ..sqlite.read_only import should_write


class Resting(Protocol):
    """A pool, for others on the same file."""

    @property
    def file(self) -> str | None:
        """The real path of its database, None in memory."""

    def close_at_rest(self) -> None:
        """Close the connections that are at rest, here and now."""


_pools: weakref.WeakSet[Resting] = weakref.WeakSet()


def close_with_others(pool: Resting) -> None:
    """Have ``pool`` close its connections at rest where one on its file is stuck."""
    _pools.add(pool)


def is_fit(worker: ConnectionThread, role: Role, pool: Resting) -> bool:
    """Whether a connection of ``pool``, which has been rolled back, can do what it is for.

    It cannot if it is closed or spent, or if SQLite has opened it read-only, although it should
    write. The index of the log is opened once for all connections of a process to a file
    (``unixShmNode`` in SQLite's os_unix.c), and read-only for all of them, until the last is
    closed. So where one is stuck, those at rest are closed, too.
    """
    if worker.closed or worker.spent:
        return False
    if not worker.suspect or role is Role.READER or (file := pool.file) is None:
        return True
    if not in_greenlet():  # nothing can be asked from here
        return False
    worker.suspect = await_only(worker.run(lambda connection: should_write(connection, file)))
    if worker.suspect:
        for each in list(_pools):
            if each.file == file:
                each.close_at_rest()
    return not worker.suspect
