"""The connections at rest in a pool, with or without one of SQLAlchemy's records."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import final

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet
from sqlalchemy.util.queue import Empty, QueueCommon

from ..execution.connection_thread import ConnectionThread
from ..transactions.placement import PlacementPolicy


class IdleConnections(QueueCommon[ConnectionPoolEntry]):
    """The connections at rest; the one used last is taken first, since its caches are warmest.

    No task waits here: the pool's line has already decided which task is next. The queue is never
    full: ``QueuePool`` closes connections beyond ``pool_size``, and would open them again a moment
    later; here they stay open, at most ``pool_size + max_overflow`` of them.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = True) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._records: deque[ConnectionPoolEntry] = deque()
        # These are taken last: a connection that SQLAlchemy has removed from its record may still
        # be about to return, and an earlier checkout would open another one.
        self._empty: deque[ConnectionPoolEntry] = deque()

    def empty(self) -> bool:
        return not self._records and not self._empty

    def full(self) -> bool:
        return False

    @property
    def at_rest(self) -> int:
        """The number of connections; empty records are not counted."""
        return len(self._records)

    def qsize(self) -> int:
        return len(self._records) + len(self._empty)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        (self._empty if item.dbapi_connection is None else self._records).append(item)

    def put(
        self, item: ConnectionPoolEntry, block: bool = True, timeout: float | None = None
    ) -> None:
        self.put_nowait(item)

    def take(self) -> ConnectionPoolEntry | None:
        """Return the next connection, or None."""
        try:
            return self._records.pop() if self.use_lifo else self._records.popleft()
        except IndexError:
            pass
        try:
            return self._empty.pop()
        except IndexError:
            return None

    def get_nowait(self) -> ConnectionPoolEntry:
        if (record := self.take()) is None:
            raise Empty
        return record

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        return self.get_nowait()


@final
class KeptConnections:
    """The kept connections of one pool, which are reused before a new one is opened."""

    def __init__(self) -> None:
        self._kept: deque[tuple[ConnectionThread, PlacementPolicy]] = deque()
        self._disposed = False

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, worker: ConnectionThread, policy: PlacementPolicy) -> None:
        """Keep a connection. This does not wait, and may be called in any thread.

        The connection's last task may be about to be cancelled again.
        """
        # Add                              | Dispose
        # append                           | _disposed = True
        # if _disposed: give up all        | close all
        # Whichever runs last finds the connection.
        self._kept.append((worker, policy))
        if self._disposed:
            self._give_up_all()

    def take(self) -> tuple[ConnectionThread, PlacementPolicy] | None:
        try:
            return self._kept.popleft()
        except IndexError:
            return None

    def dispose(self) -> None:
        """Close all connections, including those that are added later."""
        self._disposed = True
        if not in_greenlet():
            self._give_up_all()
        while (kept := self.take()) is not None:
            await_only(kept[0].close())

    def go_on(self) -> None:
        """Resume keeping the connections that are added."""
        self._disposed = False

    def _give_up_all(self) -> None:
        while (kept := self.take()) is not None:
            kept[0].give_up("its pool was disposed of", keep=False, done=lambda _: None)

    def close_before_fork(self) -> None:
        with contextlib.ExitStack() as stack:  # closes each, even if closing another one fails
            while (kept := self.take()) is not None:
                stack.callback(kept[0].close_before_fork)

    def renew_in_child(self) -> None:
        """Forget the parent's connections."""
        self._kept.clear()
