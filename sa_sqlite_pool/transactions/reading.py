"""The read transaction of one connection, and its entry in the file's snapshots."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import final

from ..execution.connection_thread import ConnectionThread
from ..system.forks import rest
from ..turn.permit import Permit
from ..turn.snapshots import Snapshot, Snapshots
from .streams import CLOSED, TOO_OLD, OpenStream


@final
class Reading:
    """Enters read transactions into ``snapshots``, and ends one that must not go on.

    ``snapshots`` is None if read transactions need no entry. ``snapshot`` is the current entry.
    ``too_old()`` makes the error of a transaction that was ended early, until its end is known.
    ``streams`` are the cursors that are open between statements, and keep their snapshot. ``long``
    is what the next transaction is declared as. ``after_work()`` is called when a transaction was
    ended early.
    """

    __slots__ = (
        "_after_work",
        "_snapshots",
        "_worker",
        "long",
        "snapshot",
        "streams",
        "too_old",
    )

    def __init__(
        self, worker: ConnectionThread, snapshots: Snapshots | None, after_work: Callable[[], None]
    ) -> None:
        self._worker = worker
        self._snapshots = snapshots
        self._after_work = after_work
        self.snapshot: Snapshot | None = None
        self.too_old: Callable[[], Exception] | None = None
        self.long = False
        self.streams: set[OpenStream] = set()

    def begin(self, checkout: Permit | None) -> bool:
        """Enter a snapshot if there is none; False in a gap: wait for its end and try again."""
        if self._snapshots is None or checkout is None or self.snapshot is not None:
            return True
        self.snapshot = self._snapshots.begin(checkout, long=self.long, end_early=self._end_early)
        return self.snapshot is not None

    async def until_no_gap(self) -> None:
        if self._snapshots is not None:
            await self._snapshots.until_no_gap()

    def end(self) -> None:
        """Leave the snapshot after the transaction's end, unless a stream keeps it."""
        if self.snapshot is not None and self._snapshots is not None and not self.streams:
            snapshot, self.snapshot = self.snapshot, None
            self._snapshots.end(snapshot)

    # -- ended early ----------------------------------------------------------------------------

    def assert_not_ended(self) -> None:
        """Raise the error of a transaction that was ended early."""
        if self.too_old is not None:
            raise self.too_old() from None

    def _end_early(self, snapshot: Snapshot, error: Callable[[], Exception]) -> None:
        if self.snapshot is snapshot:  # it has not ended by itself meanwhile
            self.too_old = error
            self._worker.stop_job()
            self._after_work()

    def drop(self) -> None:
        """Close a snapshot that was ended early, on the loop, if the connection is at rest."""
        if self.too_old is None or not self._worker.may_run_inline:
            return
        with rest():
            for cursor in self.detach_streams(TOO_OLD):
                cursor.close()
            if self._worker.in_transaction:
                self._worker.connection.execute("ROLLBACK")

    def detach_streams(self, why: str = CLOSED) -> list[sqlite3.Cursor]:
        """Return the open cursors, for the caller to close; later fetches raise ``why``."""
        cursors = [stream.detach(why) for stream in list(self.streams)]
        return [cursor for cursor in cursors if cursor is not None]
