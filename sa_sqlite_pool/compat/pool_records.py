"""Pool records that SQLAlchemy still uses after returning them to the pool.

``_finalize_fairy()`` (``sqlalchemy/pool/base.py``, in 2.0 and 2.1) cleans up after a connection
that was garbage collected. It detaches the record from the connection, which returns the record to
the pool, and then examines that record once more, to check it in if it is still in use. By then
another thread may have checked it out, so that it is in use again:

    Garbage collector, in thread 1                | Task in thread 2
    fairy.detach(): record.fairy_ref = None,      |
        record.dbapi_connection = None,           |
        pool._do_return_conn(record)              |
                                                  | pool._do_get(): the same record
                                                  | record.get_connection(), which connects
                                                  | record.fairy_ref = its own
    if connection_record.in_use:                  |
        connection_record.checkin(): rolled back, |
        and given to the next task                | executes, on a connection shared by two tasks

If ``close_detached`` or the close itself raises in between, it invalidates that record, and with
it the connection of thread 2. ``_ConnectionFairy.invalidate()`` returns the record in the same way:
if two threads close it (the loop of one of them has died), it is checked in twice.

All of these return a record without a connection, so there is nothing warm to keep. The pool
therefore checks out a new record instead: what SQLAlchemy does to the old one later affects no
task, since its ``fairy_ref`` stays None.
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
    """A record that returns to its pool even if a listener for ``checkin`` raises an error.

    SQLAlchemy's would be lost, and with it the writer engine, which has only one. It returns
    without its connection, which may still have changes that options made, or that other listeners
    would undo. ``number`` is that of its latest checkout, as counted by its pool.
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
    """Wrap ``reset``, which resets an option of a connection, for example its isolation level.

    A connection that was closed behind its user's back has nothing to reset, and a commit before
    that remains valid: the driver's error would concern neither.
    """

    def reset_unless_given_up(connection: Any) -> None:
        try:
            reset(connection)
        except Exception:
            if not getattr(connection, "given_up", False):
                raise

    return reset_unless_given_up


def reusable(record: ConnectionPoolEntry, pool: Pool) -> ConnectionPoolEntry:
    """Return ``record`` if it has a connection, else a new record without one in its place."""
    if record.dbapi_connection is not None:
        return record
    new = new_record(pool)
    # "This dictionary will persist across reconnects and connection invalidation":
    # the documentation of ManagesConnection.record_info, which is memoized in the instance.
    if _PERSISTENT in record.__dict__:
        new.__dict__[_PERSISTENT] = record.__dict__[_PERSISTENT]
    return new


def give_back_lost(records: Iterable[Any], number: int) -> None:
    """Return to their pool those of ``records`` that an error kept from being handed out.

    ``_ConnectionRecord.checkout()`` returns a record whose connection cannot be opened. If it fails
    between that and the end of ``_ConnectionFairy()`` (for example, out of memory), nothing does,
    nor if a listener for ``close`` raises during the clean-up after a listener for ``checkout``:
    stock loses a pool slot, and a writer engine would lose the write turn. ``records`` are those
    the current task has checked out but not received; those up to ``number`` are from before.
    """
    for record in records:
        if record.number > number:
            record.checkin(_fairy_was_created=has_proxy(record))


def has_proxy(record: Any) -> bool:
    """Return whether SQLAlchemy has made a proxy for a record that is checked out."""
    return record.fairy_ref is not None


def new_record(pool: Pool) -> ConnectionPoolEntry:
    """Return a record without a connection; its ``get_connection()`` opens one."""
    return Record(pool, connect=False)


def is_current(record: Any, pool: Any) -> bool:
    """Return whether ``record`` may be checked out as it is, without reopening its connection.

    The conditions are those under which ``_ConnectionRecord.get_connection()`` reopens it. Always
    False for a pool that checks connections beforehand (``pool_recycle``, ``pool_pre_ping``).
    """
    began: float = record.starttime
    return (
        pool._recycle == -1
        and not pool._pre_ping
        and pool._invalidate_time <= began
        and record._soft_invalidate_time <= began
    )
