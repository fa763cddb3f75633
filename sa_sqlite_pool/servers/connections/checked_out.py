"""The connections of an engine on servers that are checked out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from sqlalchemy.pool import ConnectionPoolEntry

from ...compat.pool_records import give_back_lost, has_proxy
from ...system.waiting import Emptied
from ...turn.permit import Permit, is_own
from ..drivers.interface import Driver
from .records import ServerRecord


@final
class Held:
    """A connection that is checked out, and watched for transactions that are idle."""

    __slots__ = ("_driver", "_record", "permit", "warned")

    long_read = False

    def __init__(self, permit: Permit, record: ConnectionPoolEntry, driver: Driver) -> None:
        self.permit = permit
        self.warned = False
        self._record = record
        self._driver = driver

    @property
    def connection(self) -> Held | None:
        """Itself; None after the connection is given up."""
        return None if self._record.dbapi_connection is None else self

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._driver.in_transaction(self._record.dbapi_connection)


@final
class CheckedOut:
    """The connections of an engine that are checked out. ``dispose()`` leaves them as they are.

    So the pool that it puts in the place of another knows them, too, and both give back here.
    ``permits`` are those of connections that are checked out or being opened for it, ``held`` are
    the former. ``refusal()`` is raised in all checkouts, None while they are welcome.
    ``begun`` is the number of checkouts that have begun so far.
    """

    def __init__(self, refusal: Callable[[], Exception] | None = None) -> None:
        self.permits: dict[ConnectionPoolEntry, Permit] = {}
        self.held: dict[ConnectionPoolEntry, Held] = {}
        self.refusal = refusal
        self.begun = 0
        self._emptied = Emptied(self.permits)

    def begin(self, record: ServerRecord, permit: Permit) -> None:
        """Note a record that is about to be checked out."""
        self.permits[record] = permit
        self.begun = record.number = self.begun + 1

    def give_back_lost(self, begun: int) -> None:
        """Undo what an error has kept from being handed out, of what this task began to check out.

        ``begun`` had begun before that.
        """
        lost = [
            record
            for record, permit in list(self.permits.items())
            if is_own(permit) and not has_proxy(record)
        ]
        give_back_lost(lost, begun)

    def end(self, record: ConnectionPoolEntry) -> Permit | None:
        """Note a record that is returned; return its permit, None if it was returned before."""
        self.held.pop(record, None)
        return self.permits.pop(record, None)

    def has_returned(self) -> None:
        """Tell that a connection was given back, or could not be opened."""
        self._emptied.tell()

    async def all_returned(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until nothing is checked out; return whether it is."""
        return await self._emptied.wait(timeout)

    def give_up_stranded(self) -> None:
        """Give up what tasks of closed event loops have, and will not give back. In a greenlet."""
        for record, permit in list(self.permits.items()):
            if permit.stranded:
                try:
                    record.invalidate()
                finally:
                    record.checkin(_fairy_was_created=False)  # type: ignore[attr-defined]

    def by_process(self, driver: Driver) -> Mapping[int, Permit]:
        """Return the permits, by the processes of the server that work for their connections."""
        return {
            driver.process_id(record.dbapi_connection): permit
            for record, permit in list(self.permits.items())
            if record.dbapi_connection is not None and not driver.is_broken(record.dbapi_connection)
        }
