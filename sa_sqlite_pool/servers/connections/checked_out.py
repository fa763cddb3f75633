"""The connections of an engine to servers, while they are checked out."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from sqlalchemy.pool import ConnectionPoolEntry

from ...compat.pool_records import give_back_lost
from ...system.waiting import Emptied
from ...turn.permit import Permit, is_own
from ..drivers.interface import Driver
from .records import ServerRecord, server_of


@final
class Held:
    """A checked-out connection that is watched for idle transactions."""

    __slots__ = ("_driver", "_record", "permit", "warned")

    long_read = False

    def __init__(self, permit: Permit, record: ConnectionPoolEntry, driver: Driver) -> None:
        self.permit = permit
        self.warned = False
        self._record = record
        self._driver = driver

    @property
    def connection(self) -> Held | None:
        """This object, or None after the connection was given up."""
        return None if self._record.dbapi_connection is None else self

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._driver.in_transaction(self._record.dbapi_connection)


@final
class CheckedOut:
    """The checked-out connections of an engine; ``dispose()`` leaves them as they are.

    The pool that replaces a disposed one therefore knows them, too, and both pools return them
    here. ``permits`` contains the permits of connections that are checked out, or being opened for
    a checkout; ``held`` contains the former alone. Every checkout raises ``refusal()``, unless it
    is None. ``begun`` is the number of checkouts that have begun so far.
    """

    def __init__(self, refusal: Callable[[], Exception] | None = None) -> None:
        self.permits: dict[ConnectionPoolEntry, Permit] = {}
        self.held: dict[ConnectionPoolEntry, Held] = {}
        self.refusal = refusal
        self.begun = 0
        self._emptied = Emptied(self.permits)

    def begin(self, record: ServerRecord, permit: Permit) -> None:
        """Register a record that is about to be checked out."""
        record.received = False
        self.permits[record] = permit
        self.begun = record.number = self.begun + 1

    def give_back_lost(self, begun: int) -> None:
        """Return to the pool what this task began to check out and never received, after an error.

        ``begun`` is the number of checkouts that had begun before.
        """
        lost = [
            record
            for record, permit in list(self.permits.items())
            if is_own(permit) and not record.received  # type: ignore[attr-defined]
        ]
        give_back_lost(lost, begun)

    def end(self, record: ConnectionPoolEntry) -> Permit | None:
        """Unregister a returned record; return its permit, or None if it was returned before."""
        self.held.pop(record, None)
        return self.permits.pop(record, None)

    def has_returned(self) -> None:
        """Signal that a connection was returned, or could not be opened."""
        self._emptied.tell()

    async def all_returned(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all are returned; return whether they are."""
        return await self._emptied.wait(timeout)

    def give_up_stranded(self) -> None:
        """Give up the connections that stranded permits hold. Must run in a greenlet."""
        for record, permit in list(self.permits.items()):
            if permit.stranded:
                try:
                    record.invalidate()
                finally:
                    record.checkin(_fairy_was_created=False)  # type: ignore[attr-defined]

    def by_process(self, driver: Driver) -> list[tuple[int, Permit]]:
        """Return the PIDs of the primary's processes behind the connections, and the permits."""
        return [
            (driver.process_id(record.dbapi_connection), permit)
            for record, permit in list(self.permits.items())
            if record.dbapi_connection is not None
            and server_of(record).is_primary  # processes of different servers may have one PID
            and not driver.is_broken(record.dbapi_connection)
        ]
