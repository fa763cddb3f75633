"""A pool that keeps connections open, and does nothing else: no limit, no wait, no check."""

from __future__ import annotations

from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, Pool, StaticPool


class Kept(StaticPool):
    """A pool whose checkout returns a connection at rest, or a new one.

    A block of this package's classes returns its connection immediately, so one connection is
    enough. A block of SQLAlchemy's own returns it in a task, one lap of the loop later: there is
    one connection for each task that reads, since waiting for another task's is not the least.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._idle: list[ConnectionPoolEntry] = []

    def _do_get(self) -> ConnectionPoolEntry:
        return self._idle.pop() if self._idle else Pool._create_connection(self)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._idle.append(record)

    def dispose(self) -> None:
        while self._idle:
            self._idle.pop().close()
