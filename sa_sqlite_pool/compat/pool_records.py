"""Pool records that SQLAlchemy has not finished with when it returns them.

``_finalize_fairy()`` (``sqlalchemy/pool/base.py``, 2.0 and 2.1 alike) cleans up after a connection
that the garbage collector has found. It detaches the record from it, which puts the record into the
pool, and looks at that record once more afterwards, to check it in if it is still in use. By then
another thread may have checked it out, and it is in use again:

    Garbage collector, in thread 1                | Task in thread 2
    fairy.detach(): record.fairy_ref = None,      |
        record.dbapi_connection = None,           |
        pool._do_return_conn(record)              |
                                                  | pool._do_get(): the same record
                                                  | record.get_connection(), which connects
                                                  | record.fairy_ref = its own
    if connection_record.in_use:                  |
        connection_record.checkin(): rolled back, |
        and given to the next task                | executes, on a connection that two tasks have

If ``close_detached`` or the closing itself raises in between, it invalidates that record, and so
the connection of thread 2. ``_ConnectionFairy.invalidate()`` returns the record in the same way:
closed by two threads (the loop of one of them has died), it is checked in twice.

All of them return a record without a connection, which keeps nothing warm. So the pool checks out
another record instead: what SQLAlchemy does to the old one later reaches no task, since
``fairy_ref`` stays None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.pool.base import _ConnectionRecord

_PERSISTENT = "record_info"


class TakesRecords(Protocol):
    """A pool, and whether a record is checked out of it."""

    def is_out(self, record: ConnectionPoolEntry) -> bool: ...

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None: ...


class Record(_ConnectionRecord):
    """A record that returns to its pool even if a listener of ``checkin`` raises an error.

    SQLAlchemy's would be lost, and the writer engine with it, which has one. It returns without its
    connection: what options have changed, and what other listeners would undo, may still be so.
    ``number`` is that of its latest checkout, which its pool counts.
    """

    number = 0

    def __init__(self, pool: Any, connect: bool = True) -> None:
        self._owner: TakesRecords = pool
        super().__init__(pool, connect)

    def checkin(self, _fairy_was_created: bool = True) -> None:
        if self.finalize_callback:
            self.finalize_callback = deque(map(_unless_given_up, self.finalize_callback))
        try:
            super().checkin(_fairy_was_created)
        except BaseException as error:
            if self._owner.is_out(self):
                try:
                    self.invalidate(error)
                finally:
                    self._owner._do_return_conn(self)
            raise


def _unless_given_up(reset: Callable[[Any], object]) -> Callable[[Any], None]:
    """Return what resets an option of a connection, its isolation level, say.

    One that was closed beside its user has nothing to reset, and what was committed is done: the
    driver's error would be about neither.
    """

    def reset_unless_given_up(connection: Any) -> None:
        try:
            reset(connection)
        except Exception:
            if not getattr(connection, "given_up", False):
                raise

    return reset_unless_given_up


def reusable(record: ConnectionPoolEntry, pool: Pool) -> ConnectionPoolEntry:
    """Return ``record`` with its connection, or a new record without one in its place."""
    if record.dbapi_connection is not None:
        return record
    new = new_record(pool)
    # "This dictionary will persist across reconnects and connection invalidation":
    # ManagesConnection.record_info, which is memoized in the instance.
    if _PERSISTENT in record.__dict__:
        new.__dict__[_PERSISTENT] = record.__dict__[_PERSISTENT]
    return new


def give_back_lost(records: Iterable[Any], number: int) -> None:
    """Return those of ``records`` to their pool that an error has kept from being handed out.

    ``_ConnectionRecord.checkout()`` returns a record whose connection cannot be opened. If it fails
    between that and the end of ``_ConnectionFairy()`` (no memory, say), nothing does, nor if a
    listener of ``close`` raises while it cleans up after one of ``checkout``: stock loses a slot of
    its pool, and a writer engine would lose the write turn. ``records`` are those that the current
    task has checked out and not been given; up to ``number``, it had done so before.
    """
    for record in records:
        if record.number > number:
            record.checkin(_fairy_was_created=has_proxy(record))


def has_proxy(record: Any) -> bool:
    """Return whether SQLAlchemy has made a proxy for a record that is checked out."""
    return record.fairy_ref is not None


def new_record(pool: Pool) -> ConnectionPoolEntry:
    """Return a record without a connection, which its ``get_connection()`` opens."""
    return Record(pool, connect=False)


def is_current(record: Any, pool: Any) -> bool:
    """Return whether ``record`` may be checked out as it is, without opening its connection anew.

    The conditions are those of ``_ConnectionRecord.get_connection()``, which opens it. A pool that
    looks at its connections before (``pool_recycle``, ``pool_pre_ping``) never says so.
    """
    began: float = record.starttime
    return (
        pool._recycle == -1
        and not pool._pre_ping
        and pool._invalidate_time <= began
        and record._soft_invalidate_time <= began
    )
