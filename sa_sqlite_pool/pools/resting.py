"""The connections at rest in a pool."""

from __future__ import annotations

from collections import deque

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util.queue import Empty, QueueCommon


class IdleConnections(QueueCommon[ConnectionPoolEntry]):
    """The connections at rest; the one used last is lent first, since its caches are warmest.

    No task waits here: the pool's line decides before which task may come. It is never full:
    ``QueuePool`` closes connections above ``pool_size``, and would open them again a moment later;
    here they stay open, at most ``pool_size + max_overflow`` of them.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = True) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._records: deque[ConnectionPoolEntry] = deque()
        # Lent last: a connection that SQLAlchemy has thrown out of its record may still be on its
        # way back, and an earlier checkout would open another.
        self._empty: deque[ConnectionPoolEntry] = deque()

    def empty(self) -> bool:
        return not self._records and not self._empty

    def full(self) -> bool:
        return False

    def qsize(self) -> int:
        return len(self._records) + len(self._empty)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        (self._empty if item.dbapi_connection is None else self._records).append(item)

    def put(
        self, item: ConnectionPoolEntry, block: bool = True, timeout: float | None = None
    ) -> None:
        self.put_nowait(item)

    def get_nowait(self) -> ConnectionPoolEntry:
        try:
            return self._records.pop() if self.use_lifo else self._records.popleft()
        except IndexError:
            pass
        try:
            return self._empty.pop()
        except IndexError:
            raise Empty from None

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        return self.get_nowait()
