"""Checkouts of connections: their holders, and when a permit passes on to the next in line."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import cast, final

from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from ..driver.adapter import SQLiteConnection
from ..execution.loop_budget import LoopBudget
from ..system.waiting import done_in_time
from ..turn.permit import Permit


@final
class Checkout:
    """A connection that is checked out, under a permit, and on the ``budget`` of a loop or on none.

    Two things must come back before the permit passes on: the record to its pool, and the
    connection. They come back together, unless SQLAlchemy throws the connection away or the
    application detaches it:

        Task                     | Connection's thread     | Next in line
        cancelled; record back   |                         |
                                 | ROLLBACK                |
                                 | connection back →       | owns the permit
    """

    __slots__ = ("_connection", "_missing", "_on_end", "_proxied", "budget", "permit", "warned")

    def __init__(
        self, permit: Permit, budget: LoopBudget | None, on_end: Callable[[Checkout], None]
    ) -> None:
        self.permit = permit
        self.budget = budget
        # Weak references, so that the garbage collector finds what the application has lost.
        self._connection: weakref.ref[SQLiteConnection] | None = None
        self._proxied: weakref.ref[PoolProxiedConnection] | None = None
        self.warned = False  # of an idle transaction
        self._on_end = on_end
        self._missing = {"record", "connection"}

    @property
    def connection(self) -> SQLiteConnection | None:
        """The connection; None before it is lent, and after it is lost."""
        return None if self._connection is None else self._connection()

    def comes_back_with(self, record: ConnectionPoolEntry) -> bool:
        """Return whether the connection, if any, comes back in the record and not separately."""
        if self._connection is None:
            return True
        lent, came = self._connection(), cast(object, record.dbapi_connection)
        return lent is not None and came is lent and not lent.worker.closed

    def lend(self, connection: SQLiteConnection, proxied: PoolProxiedConnection) -> None:
        self._connection = weakref.ref(connection)
        self._proxied = weakref.ref(proxied)
        connection.checked_out(self.permit, self.connection_is_back)

    def record_is_back(self) -> None:
        """Note that the record is back, without the connection."""
        self._is_back("record")

    def connection_is_back(self) -> None:
        """Note that the connection is back. Callable from any thread, more than once."""
        self._is_back("connection")

    def _is_back(self, part: str) -> None:
        self._missing.discard(part)
        if not self._missing:
            self._on_end(self)

    def take_back(self) -> None:
        """End the checkout for a task that will not. Called outside any greenlet."""
        proxied = None if self._proxied is None else self._proxied()
        if proxied is not None:
            proxied.invalidate()


@final
class Checkouts:
    """The checkouts of one pool. ``release`` passes a permit on."""

    def __init__(self, release: Callable[[Permit], None]) -> None:
        self._release = release
        self._by_record: dict[ConnectionPoolEntry, Checkout] = {}
        self._open: set[Checkout] = set()
        self._on_last_end: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Checkout]:
        return iter(list(self._open))

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, record: ConnectionPoolEntry, permit: Permit, budget: LoopBudget | None) -> None:
        checkout = self._by_record[record] = Checkout(permit, budget, self.end)
        permit.recall = checkout.take_back
        self._open.add(checkout)
        if budget is not None:
            budget.begin_work(checkout)

    def of(self, proxied: PoolProxiedConnection) -> Checkout | None:
        record = getattr(proxied, "_connection_record", None)
        return self._by_record.get(record) if record is not None else None

    def of_record(self, record: ConnectionPoolEntry) -> Checkout | None:
        """Remove and return the checkout of a record that is coming back."""
        return self._by_record.pop(record, None)

    async def all_ended(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the end of all checkouts; return whether it came."""
        ended: Future[None] = Future()
        self._on_last_end = lambda: _tell(ended)
        if self._open:
            await done_in_time(ended, timeout)
        return not self._open

    def end(self, checkout: Checkout) -> None:
        """Pass the permit on after both are back. Callable from any thread."""
        if checkout not in self._open:
            return
        self._open.discard(checkout)
        checkout.permit.recall = None  # breaks a reference cycle: garbage collection is slow
        self._release(checkout.permit)
        if not self._open and self._on_last_end is not None:
            self._on_last_end()

    def renew_in_child(self) -> None:
        """Forget the parent's checkouts. No record of them may come back to a pool here."""
        for record in self._by_record:
            record.fairy_ref = None  # type: ignore[attr-defined]
        self._by_record.clear()
        self._open.clear()


def _tell(ended: Future[None]) -> None:
    with contextlib.suppress(InvalidStateError):  # set already, by another thread
        ended.set_result(None)
