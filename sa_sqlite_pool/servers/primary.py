"""Connections to the primary, for writes."""

from __future__ import annotations

import asyncio

from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry

from ..errors import TurnAlreadyHeldError, WriteTimeout
from ..freshness import seen_by
from ..transactions.locks import write_patience
from ..turn.waits import WaitedFor
from .connections.server import PRIMARY, Server
from .pool import ServerPool


class PrimaryPool(ServerPool):
    """Connections that write. If there is only one, its line is the turn within this process."""

    timeout_error = WriteTimeout
    waited_for = WaitedFor.TURN
    option = "write_timeout"

    @property
    def timeout(self) -> float:
        """The seconds that a checkout waits for a permit, and a transaction for the turn."""
        patience = write_patience.get()
        return self._timeout if patience is None else patience

    @property
    def in_turn(self) -> bool:
        """Whether one transaction writes at a time."""
        return self.primary.capacity == 1

    def _do_get(self) -> ConnectionPoolEntry:
        return self._take(self.primary)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record.dbapi_connection is None and (seen := seen_by(self._owner)) is not None:
            seen.note_read(PRIMARY)  # broken: what it read, and may have committed
        super()._do_return_conn(record)

    def _before_waiting(self, server: Server) -> None:
        if self.in_turn and server.line.is_in_use_by(asyncio.current_task()):
            self.counts.self_deadlocks += 1
            raise TurnAlreadyHeldError(
                f"this task already holds the write turn of {server.name} "
                f"({server.line.describe_holders()}) and would wait for itself; write through the "
                "session or connection that is open, or close it first; a listener of after_commit "
                "or after_rollback, after which it is returned, can write in a new task",
                TimeoutError("the wait for the write turn would never end"),
            )

    def _not_in_time(self, server: Server) -> exc.TimeoutError:
        if not self.in_turn:
            return super()._not_in_time(server)
        return WriteTimeout(
            f"waited {self.timeout:.2f} s to write to {server.name}; the turn has been held for "
            f"{server.line.describe_holders()}, {server.line.waiting} more waiting in line; "
            "shorten that transaction or raise write_timeout",
            TimeoutError("timed out waiting for the write turn"),
        )
