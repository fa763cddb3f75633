"""The transaction of an auto session: the writer's connection, and a reader's alongside it.

Before the first write, an auto session reads on a connection of the reader engine. SQLAlchemy's
``SessionTransaction`` does not include that connection: savepoints, COMMIT and ROLLBACK are for
writes and do not apply to a reader, except where an error aborts the reader's transaction, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

from sqlalchemy import Connection, Engine, NestedTransaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.orm.session import SessionTransactionState
from sqlalchemy.util import warn

from ..compat.sqlalchemy_core import undo_unreleased
from ..compat.sqlalchemy_orm import takes_connection
from ..driver.adapter import SQLiteConnection
from ..errors import OpenReadError, StaleReadError
from ..pools.impl import WriterPool
from ..postgresql.sqlstate import FAILED_TRANSACTION, sqlstate_of
from .streams import OpenStreams


@final
class RoutedTransaction(SessionTransaction):
    """The root transaction of an auto session.

    ``on_writer`` is set by the first write and stays set until the end. ``reads`` counts the
    statements that have gone to the reader. ``temp_objects`` are the names of temp tables and other
    temp objects created on the reader. ``left_open`` belongs to the session: reader connections
    whose streams are still open after their transaction has ended. ``streams`` belongs to the
    session, too: the open streams, if the reader's pool is not one of this package's, which track
    their own; None otherwise.

    :param refuse_stale_writes: see :func:`~sa_sqlite_pool.routing_sessionmaker`
    """

    def __init__(
        self,
        session: Session,
        origin: SessionTransactionOrigin,
        writer: Engine,
        reader: Engine,
        left_open: list[Connection],
        streams: OpenStreams | None,
        *,
        refuse_stale_writes: bool,
    ) -> None:
        # Set before anything else: listeners of the event of its creation may use the session.
        self._writer = writer
        self._reader_engine = reader
        self._left_open = left_open
        self._streams = streams
        self._refuse_stale_writes = refuse_stale_writes
        self._reader: Connection | None = None
        self._version_read: int | None = None  # compared before the first write
        self.on_writer = False
        self.reads = 0
        self.temp_objects: set[str] = set()
        # Where an error aborts the transaction, the reader sets the same savepoints.
        self._savepoints = _Savepoints() if reader.dialect.name == "postgresql" else None
        super().__init__(session, origin)

    # -- reading --------------------------------------------------------------------------------

    @takes_connection
    def reader_connection(self, execution_options: Any = None) -> Connection:
        """Return the reader's connection, checking it out at the first call.

        The checkout waits at most ``read_timeout`` seconds. The event ``after_begin`` reports the
        connection, like every connection that begins in a session's transaction.
        """
        if self._reader is not None:
            self.reads += 1
            if execution_options:
                warn(
                    "Connection is already established for the given bind; "
                    "execution_options ignored"
                )
            if self._savepoints is not None:
                self._savepoints.follow(self.session, self._reader)
            return self._reader
        self._state = SessionTransactionState.PROVISIONING_CONNECTION
        try:
            self._close_finished()
            self._reader = self._connect(execution_options)
            self.reads += 1
            self.session.dispatch.after_begin(self.session, self, self._reader)
            if self._savepoints is not None:
                self._savepoints.follow(self.session, self._reader)
            return self._reader
        finally:
            self._state = SessionTransactionState.ACTIVE

    def note_failed_read(self) -> None:
        """Note that a statement failed on the reader, whose transaction may now be aborted."""
        if self._savepoints is not None:
            self._savepoints.failed = True

    def _connect(self, execution_options: Any) -> Connection:
        connection = self._reader_engine.connect()
        try:
            # Since SQLAlchemy 2.1, a session's execution options apply to its connections.
            options = {
                **(getattr(self.session, "execution_options", None) or {}),
                **(execution_options or {}),
            }
            if options:
                connection = connection.execution_options(**options)
            if not connection.in_transaction():  # a listener of engine_connect may have begun one
                connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    # -- writing --------------------------------------------------------------------------------

    def _connection_for_bind(self, bind: Any, execution_options: Any) -> Connection:
        if bind is self._reader_engine:  # a flush to a temp table
            return self.reader_connection(execution_options)
        if bind.engine is not self._writer:
            return super()._connection_for_bind(bind, execution_options)
        if not self.on_writer and self.is_active:
            self._leave_reader()
        elif self._streams is not None:
            self._leave_stream(self._streams)
        connection = super()._connection_for_bind(bind, execution_options)
        if self._version_read is not None:
            self._assert_fresh(connection)
        return connection

    def _leave_reader(self) -> None:
        """Return the reader before waiting for the writer.

        Other sessions can read with it meanwhile. And without WAL, the COMMIT of the session that
        holds the write turn may be waiting for this read to end.
        """
        reader = self._reader
        if in_the_way := self._in_the_way():
            self._assert_turn_is_free(in_the_way)
        if reader is None or reader.closed:
            self.on_writer = True
            return
        if self._streams is not None:
            self.on_writer = True
            self._leave_stream(self._streams)
            return
        # Raises PendingRollbackError after a cancelled read, as a stock session does.
        driver = reader.connection.dbapi_connection
        assert isinstance(driver, SQLiteConnection)
        kept = self._still_needed(driver)
        if self._refuse_stale_writes:
            self._note_version(driver, kept)
        self.on_writer = True
        if not self.temp_objects:  # a ROLLBACK would drop them
            driver.end_read()
        if not kept and not self._refuse_stale_writes:
            self._close_reader()

    def _leave_stream(self, streams: OpenStreams) -> None:
        """Return the reader at the first use of the writer while no stream is open on the reader.

        An idle transaction on a replica prevents others from seeing later commits.
        """
        if self._reader is not None and not streams.on(self._reader):
            self._close_reader()

    def _still_needed(self, driver: SQLiteConnection) -> str:
        """Return, for messages, what the session still needs the reader for; "" if nothing."""
        if driver.has_open_streams:
            return "an open stream"
        return f"the temp table {min(self.temp_objects)!r}" if self.temp_objects else ""

    def _note_version(self, driver: SQLiteConnection, kept: str) -> None:
        if kept:  # the snapshot stays, and data_version belongs to that snapshot
            raise OpenReadError(
                "refuse_stale_writes cannot tell whether what this session has read is up to "
                f"date, because of {kept} on its reader connection; nothing was written: close "
                'it before the first write, or use role="writer" from the start'
            )
        self._version_read = driver.data_version()

    def _assert_fresh(self, writer: Connection) -> None:
        # Reader                        | Writer                    | Another session
        # SELECT balance → 10           |                           |
        # data_version → 7              |                           |
        # ROLLBACK ends the snapshot    |                           |
        #                               |                           | UPDATE …; COMMIT
        #                               | BEGIN IMMEDIATE           | (can no longer commit)
        # data_version → 8              |                           |
        writer.exec_driver_sql("SELECT 1")  # which sends BEGIN IMMEDIATE first
        driver = None if self._reader is None else _driver_of(self._reader)
        if driver is None or driver.data_version() != self._version_read:
            raise StaleReadError(
                "this session read before it wrote, and another transaction was committed in "
                "between, so what it read may be out of date; nothing was written: retry the "
                'transaction, or use role="writer" from its start'
            )
        self._version_read = None
        self._close_reader()

    # -- without WAL ----------------------------------------------------------------------------

    # A COMMIT then waits for all reads, including those of its own session.

    def _in_the_way(self) -> str:
        """Return, for messages, what a COMMIT would wait for in vain; "" if nothing."""
        self._close_finished()
        if any(map(_keeps_others_from_committing, self._left_open)):
            return "an open stream of an earlier transaction"
        if self._reader is None or not _keeps_others_from_committing(self._reader):
            return ""
        driver = _driver_of(self._reader)
        return "" if driver is None else self._still_needed(driver)

    def _assert_turn_is_free(self, in_the_way: str) -> None:
        # This session                 | Holder of the turn
        # SELECT (a stream, open)      |
        #                              | BEGIN IMMEDIATE; UPDATE …
        # waits for the turn           |
        #                              | COMMIT: waits for the stream
        pool = self._writer.pool
        turn = pool.turn if isinstance(pool, WriterPool) else None
        if turn is not None and (holder := turn.holder) is not None:
            raise OpenReadError(
                f"the write turn of {turn.name} is held by {holder.describe_holder()}, whose "
                f"COMMIT would wait for {in_the_way} in this session, while this session would "
                f"wait for the turn; nothing was written: {_WAY_OUT}"
            )

    def commit(self, _to_root: bool = False) -> None:
        """Commit; if that would wait for the session's own reads, raise at once and name them."""
        if (self._reader is not None or self._left_open) and self.is_active:
            self._clear_the_way()
        super().commit(_to_root)

    def _clear_the_way(self) -> None:
        in_the_way = self._in_the_way()
        if in_the_way:
            self.session.flush()  # the flush may be the first write
        if not self.on_writer:
            return
        if in_the_way:
            raise OpenReadError(
                "this session would wait for itself: without WAL a COMMIT waits for all reads, "
                f"and this session still has {in_the_way} on its reader connection; nothing was "
                f"committed, and the transaction is as it was: {_WAY_OUT}"
            )
        driver = None if self._reader is None else _driver_of(self._reader)
        if driver is not None and not self._still_needed(driver):
            self._close_reader()

    # -- the end --------------------------------------------------------------------------------

    def close(self, invalidate: bool = False) -> None:
        """End the transaction, the reader's part first: listeners of its end may begin another."""
        try:
            self._end_reading(invalidate)
        finally:
            super().close(invalidate)

    def _end_reading(self, invalidate: bool) -> None:
        reader = self._reader
        if reader is not None and invalidate and not reader.closed:
            reader.invalidate()
        if reader is not None and self._has_streams(reader):
            self._reader = None
            self._left_open.append(reader)
            if (driver := _driver_of(reader)) is not None:
                driver.end_read()
        else:
            self._close_reader()

    def _has_streams(self, connection: Connection) -> bool:
        if self._streams is not None:
            return self._streams.on(connection)
        driver = _driver_of(connection)
        return driver is not None and driver.has_open_streams

    def _close_finished(self) -> None:
        """Close the connections whose streams have been read to the end or closed."""
        for connection in list(self._left_open):
            if not self._has_streams(connection):
                self._left_open.remove(connection)
                give_back(connection)

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            give_back(reader)


@final
class _Savepoints:
    """The session's savepoints on its reader, so that an error in one of them ends with it there.

    The first read within a savepoint sets it on the reader. After it has ended, the next read rolls
    back to it if a read has ``failed`` meanwhile, and releases it otherwise. Errors while rows are
    fetched, or on the connection itself, are not noted: then the server refuses the release.
    """

    def __init__(self) -> None:
        self.failed = False
        self._set: list[tuple[SessionTransaction, NestedTransaction]] = []

    def follow(self, session: Session, reader: Connection) -> None:
        """Bring ``reader`` into the same savepoint as ``session``."""
        innermost = session.get_nested_transaction()
        if innermost is None and not self._set:
            return
        self._leave(set(_around(innermost)))
        if innermost is not None and all(one is not innermost for one, _ in self._set):
            self._set.append((innermost, reader.begin_nested()))

    def _leave(self, open_ones: set[SessionTransaction]) -> None:
        ended = [savepoint for one, savepoint in self._set if one not in open_ones]
        self._set = [pair for pair in self._set if pair[0] in open_ones]
        for savepoint in reversed(ended):
            if self.failed:
                savepoint.rollback()
            else:
                self._release(savepoint)
        if ended:
            self.failed = False

    def _release(self, savepoint: NestedTransaction) -> None:
        try:
            savepoint.commit()
        except DBAPIError as error:
            if sqlstate_of(error) != FAILED_TRANSACTION:
                raise
            self.failed = True
            undo_unreleased(savepoint)


def _around(transaction: SessionTransaction | None) -> Iterator[SessionTransaction]:
    """Yield a transaction and the transactions in which it is nested."""
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


def close_all(connections: list[Connection]) -> None:
    """Close the connections and their streams."""
    try:
        while connections:
            give_back(connections.pop())
    finally:
        if connections:
            close_all(connections)


def give_back(connection: Connection) -> None:
    """Close a reader's connection, even if its server has ended it: what was read remains valid.

    An error here would be raised from a flush or a commit that is unrelated to it. Drivers raise
    errors of the operating system and of the event loop, too.
    """
    try:
        connection.close()
    except Exception as error:
        if not connection.closed:
            connection.invalidate(error)
            connection.close()


def _driver_of(connection: Connection) -> SQLiteConnection | None:
    """Return the package's own connection beneath it; None if it is another driver's or gone."""
    if connection.closed or connection.invalidated:
        return None
    driver = connection.connection.dbapi_connection
    return driver if isinstance(driver, SQLiteConnection) else None


def _keeps_others_from_committing(connection: Connection) -> bool:
    driver = _driver_of(connection)
    return driver is not None and driver.keeps_others_from_committing


_WAY_OUT = 'read it to the end or close it first, or use role="writer" from the start'
