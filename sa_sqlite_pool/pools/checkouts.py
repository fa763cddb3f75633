"""Checkouts of connections: their holders, and when a permit passes to the next task in line."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import cast, final

from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from ..compat.pool_records import give_back_lost
from ..driver.adapter import SQLiteConnection
from ..execution.loop_budget import LoopBudget
from ..system.waiting import Emptied
from ..turn.permit import Permit, is_own
from ..turn.whereabouts import caller


@final
class Checkout:
    """A connection that is checked out under a permit, and on the ``budget`` of a loop, if any.

    Two things must be returned before the permit passes on: the record to its pool, and the
    connection. They are returned together, unless SQLAlchemy discards the connection or the
    application detaches it:

        Task                     | Connection's thread     | Next in line
        cancelled; record back   |                         |
                                 | ROLLBACK                |
                                 | connection back →       | holds the permit
    """

    __slots__ = (
        "_missing",
        "_on_end",
        "budget",
        "connection_reference",
        "permit",
        "to_take_back",
        "warned",
    )

    def __init__(
        self, permit: Permit, budget: LoopBudget | None, on_end: Callable[[Checkout], None]
    ) -> None:
        self.permit = permit
        self.budget = budget
        # A weak reference, so that a connection that the application has lost becomes garbage.
        self.connection_reference: weakref.ref[SQLiteConnection] | None = None
        self.warned = False  # about an idle transaction
        self.to_take_back: list[None] = [None]  # a token, which only one of several threads gets
        self._on_end = on_end
        self._missing = {"record", "connection"}

    @property
    def connection(self) -> SQLiteConnection | None:
        """The connection; None before it is handed out, and after it is lost."""
        return None if self.connection_reference is None else self.connection_reference()

    def record_is_back(self) -> None:
        """Note that the record was returned without the connection."""
        self._is_back("record")

    def connection_is_back(self) -> None:
        """Note that the connection was returned. Any thread may call this, more than once."""
        self._is_back("connection")

    def _is_back(self, part: str) -> None:
        self._missing.discard(part)
        if not self._missing:
            self._on_end(self)


@final
class Checkouts:
    """The checkouts of one pool; ``begun`` is the number that have begun so far."""

    def __init__(self) -> None:
        self._by_record: dict[ConnectionPoolEntry | None, Checkout] = {}
        self._open: set[Checkout] = set()
        self.begun = 0
        self._emptied = Emptied(self._open)

    def __iter__(self) -> Iterator[Checkout]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def permits(self) -> list[Permit]:
        """The permits of the checkouts; the one held longest is first."""
        return sorted((checkout.permit for checkout in self), key=attrgetter("since"))

    def begin(self, record: ConnectionPoolEntry, permit: Permit, budget: LoopBudget | None) -> None:
        checkout = self._by_record[record] = Checkout(permit, budget, self.end)
        self.begun = record.number = self.begun + 1  # type: ignore[attr-defined]
        permit.recall = lambda: self.take_back(checkout)
        self._open.add(checkout)
        if budget is not None:
            budget.begin_work(checkout)

    def forget(self, record: ConnectionPoolEntry) -> None:
        """Undo a :meth:`begin` that failed half-way, except for the permit."""
        checkout = self._by_record.pop(record, None)
        if checkout is not None:
            checkout.permit.recall = None
            self._open.discard(checkout)

    def give_back_lost(self, begun: int) -> None:
        """Undo those checkouts of this task that were never handed out, because of an error.

        ``begun``: the number of checkouts that had begun before them.
        """
        lost = [
            record
            for record, out in list(self._by_record.items())
            if out.connection_reference is None and is_own(out.permit)
        ]
        give_back_lost(lost, begun)

    def hand_out(self, proxied: PoolProxiedConnection) -> Checkout | None:
        """Hand the connection to the application, after SQLAlchemy's own checkout.

        This waits if the connection has to be set up.
        """
        connection = proxied.dbapi_connection
        checkout = self._by_record.get(getattr(proxied, "_connection_record", None))
        if checkout is None or not isinstance(connection, SQLiteConnection):
            return None
        if checkout.permit.asked_at is None:  # it did not have to wait
            checkout.permit.asked_at = caller()
        connection.checked_out(checkout.permit, checkout.connection_is_back)
        checkout.connection_reference = weakref.ref(connection)
        return checkout

    def of(self, proxied: PoolProxiedConnection) -> Checkout | None:
        return self._by_record.get(getattr(proxied, "_connection_record", None))

    def permit_of(self, record: ConnectionPoolEntry) -> Permit | None:
        """Return the permit under which a record is checked out."""
        found = self._by_record.get(record)
        return None if found is None else found.permit

    def is_out(self, record: ConnectionPoolEntry) -> bool:
        """Return whether a record is checked out, and not yet being returned."""
        return record in self._by_record

    def pop(self, record: ConnectionPoolEntry) -> tuple[Checkout | None, bool]:
        """Remove and return the checkout of a record that is being returned; None if it has none.

        Also return whether the connection, if any, is returned in the record and not separately.
        """
        checkout = self._by_record.pop(record, None)
        if checkout is None or checkout.connection_reference is None:
            return checkout, True
        out, came = checkout.connection_reference(), cast(object, record.dbapi_connection)
        return checkout, out is not None and came is out and out.worker.ended is None

    def take_back(self, checkout: Checkout) -> None:
        """End a checkout that its task will not end. This is called outside any greenlet."""
        try:
            checkout.to_take_back.pop()
        except IndexError:  # another thread has the token
            return
        record = next((one for one, out in list(self._by_record.items()) if out is checkout), None)
        if record is None:  # it is being returned
            return
        connection = record.dbapi_connection
        if isinstance(connection, SQLiteConnection):
            # It may not be fully set up yet, for example while a listener of "checkout" waits.
            connection.on_gone(checkout.connection_is_back)
            checkout.connection_reference = weakref.ref(connection)
        proxied = None if record.fairy_ref is None else record.fairy_ref()  # type: ignore[attr-defined]
        if proxied is not None:
            proxied.invalidate()
        else:  # it is being opened
            try:
                record.invalidate()
            finally:
                record.checkin(_fairy_was_created=False)  # type: ignore[attr-defined]

    async def all_ended(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all checkouts end; return whether they have."""
        return await self._emptied.wait(timeout)

    def end(self, checkout: Checkout) -> None:
        """Pass the permit on, once record and connection are back. Any thread may call this."""
        if checkout not in self._open:
            return
        self._open.discard(checkout)
        permit = checkout.permit
        permit.recall = None  # breaks a reference cycle: garbage collection is slow
        assert permit.line is not None
        try:
            permit.line.release(permit)
        except BaseException:  # from a signal handler: nothing else would release the permit
            permit.line.release(permit)
            raise
        if self._emptied.awaited is not None:
            self._emptied.tell()

    def renew_in_child(self) -> None:
        """Forget the parent's checkouts. None of their records may return to a pool here."""
        for record in self._by_record:
            record.fairy_ref = None  # type: ignore[union-attr]
        self._by_record.clear()
        self._open.clear()
