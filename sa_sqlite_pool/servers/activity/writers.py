"""Connections that write, while they are checked out in a ``fresh()`` block.

What SQLAlchemy commits on them is recorded at once. Work that bypassed SQLAlchemy, in the driver
or in a procedure that commits and then fails, is detected by the number of operations since.
"""

from __future__ import annotations

from typing import Any, final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.pool import ConnectionPoolEntry

from ...freshness import Seen, seen_by
from ...postgresql.statements import boundaries, ends_transaction
from ..connections.records import record_of
from ..connections.server import PRIMARY
from ..drivers.choosing import driver_of
from ..drivers.interface import Driver

_KNOWN = "sa_sqlite_pool_known_activity"


@final
class WritersOut:
    """A database's connections that write; ``seen`` maps each to the block that checked it out."""

    def __init__(self) -> None:
        # SQLAlchemy does not report when a connection is detached: it only drops its record.
        self.seen: WeakKeyDictionary[ConnectionPoolEntry, Seen] = WeakKeyDictionary()

    def look(self, seen: Seen, driver: Driver) -> None:
        """Record in ``seen`` what was done on its connections outside of a transaction.

        Nothing is sent. The work of a transaction is recorded when it is committed.
        """
        for reference in self.seen.keyrefs() if self.seen else ():  # other threads add theirs
            record = reference()
            if record is None or self.seen.get(record) is not seen:
                continue
            connection = record.dbapi_connection
            if (
                connection is not None
                and not driver.has_open(connection)
                and has_more(record, driver)
            ):
                seen.note_read(PRIMARY)


def note_known(record: ConnectionPoolEntry | None, driver: Driver) -> None:
    """Record that a connection's ``fresh()`` block knows of everything done on it so far."""
    if record is not None and record.dbapi_connection is not None:
        record.info[_KNOWN] = driver.activity(record.dbapi_connection)


def has_more(record: ConnectionPoolEntry | None, driver: Driver) -> bool:
    """Return whether a connection is gone, or more may have been done on it than is known."""
    if record is None or record.dbapi_connection is None:
        return True
    return bool(record.info.get(_KNOWN) != driver.activity(record.dbapi_connection))


def note_other_work(engine: Engine, owner: object, out: WritersOut) -> None:
    """Record what is done on connections of ``engine`` other than by SQLAlchemy's COMMIT.

    It is recorded in the ``fresh()`` block of ``owner``, whose next read queries the position: when
    an AUTOCOMMIT statement ends, a transaction begins, or a connection is returned, and by ``out``.
    """
    driver = driver_of(engine.dialect)

    def note_more(record: ConnectionPoolEntry | None) -> None:
        if (seen := seen_by(owner)) is not None and has_more(record, driver):
            seen.note_read(PRIMARY)
            note_known(record, driver)

    def begins(connection: Connection) -> None:
        note_more(record_of(connection.connection))

    def executed(connection: Connection, _cursor: Any, sql: str | None, *_: Any) -> None:
        proxied = connection.connection
        adapted = proxied.dbapi_connection
        if adapted is None or seen_by(owner) is None:
            return
        # It may be a committed write, or COMMIT AND CHAIN, after which another transaction is open.
        if adapted.autocommit or any(map(ends_transaction, boundaries(sql or ""))):
            note_more(record_of(proxied))

    def has_failed(context: ExceptionContext) -> None:
        connection = context.connection
        if connection is not None and not (connection.closed or connection.invalidated):
            executed(connection, None, context.statement)  # a procedure may have committed before

    def is_checked_out(_connection: Any, record: ConnectionPoolEntry, _proxied: Any) -> None:
        if (seen := seen_by(owner)) is not None:
            out.seen[record] = seen
            note_known(record, driver)  # nothing was done on it yet

    def is_returned(_connection: Any, record: ConnectionPoolEntry) -> None:
        note_more(record)  # what was done without a transaction, or by the driver
        out.seen.pop(record, None)
        record.info.pop(_KNOWN, None)

    event.listen(engine, "begin", begins)
    event.listen(engine, "after_cursor_execute", executed)
    event.listen(engine, "handle_error", has_failed)
    event.listen(engine, "checkout", is_checked_out)
    event.listen(engine, "checkin", is_returned)
