"""Kept connections: warm, rolled back, and without a record in the pool."""

from __future__ import annotations

from collections import deque
from typing import final

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..execution.connection_thread import ConnectionThread
from ..transactions.placement import PlacementPolicy


@final
class KeptConnections:
    """The kept connections of one pool, which are used before a new one is opened."""

    def __init__(self) -> None:
        self._kept: deque[tuple[ConnectionThread, PlacementPolicy]] = deque()
        self._disposed = False

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, worker: ConnectionThread, policy: PlacementPolicy) -> None:
        """Keep a connection. Callable from any thread."""
        # Add                              | Dispose
        # append                           | _disposed = True
        # if _disposed: close all          | close all
        # Whichever comes last finds the connection.
        self._kept.append((worker, policy))
        if self._disposed:
            self._close_all()

    def take(self) -> tuple[ConnectionThread, PlacementPolicy] | None:
        try:
            return self._kept.popleft()
        except IndexError:
            return None

    def dispose(self) -> None:
        """Close all, also those that are added later."""
        self._disposed = True
        self._close_all()

    def _close_all(self) -> None:
        while (kept := self.take()) is not None:
            worker, _ = kept
            if in_greenlet():
                await_only(worker.close())
            else:
                worker.give_up("its pool was disposed of", keep=False, done=lambda _: None)

    def close_before_fork(self) -> None:
        while (kept := self.take()) is not None:
            kept[0].close_before_fork()

    def renew_in_child(self) -> None:
        """Forget the parent's connections."""
        self._kept.clear()
