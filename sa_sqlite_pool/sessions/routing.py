"""Sessions that use two engines, a writer and a reader.

Nothing here depends on SQLite: an application that outgrows one machine points ``writer`` at a
PostgreSQL primary and ``reader`` at its replicas, and keeps its code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InvalidRequestError, UnboundExecutionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
)
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from ..compat.sqlalchemy_orm import assert_block_is_open
from ..errors import SessionEndedError
from ..pools.base import FairPool
from ..pools.impl import ReaderPool
from ..settings import Role
from .composing import composed
from .lean import LeanSession
from .reads import only_reads
from .refusals import (
    BEGIN_AS_WRITER,
    USE_A_WRITER,
    assert_staleness_can_be_told,
    is_refused_write,
    raise_forbidden_write,
    twophase_refused,
)
from .streams import OpenStreams
from .temp_tables import Target, mentioned, target_of
from .transaction import RoutedTransaction, close_all

# The verb of a use that is refused: the temp table is on the reader, the session on the writer.
_OUT_OF_REACH = ""


class RoutedSession(Session):
    """The synchronous session inside a :class:`RoutedAsyncSession`.

    :param bind: the default engine: ``writer`` if not given, or ``reader`` for that role. Any other
        engine replaces both, and nothing is routed
    :param writer: an ``Engine`` or ``AsyncEngine``
    :param reader: an ``Engine`` or ``AsyncEngine``
    :param role: ``"writer"`` and ``"reader"`` send everything to that engine. ``"auto"`` sends
        reads to the reader until the first write; from then until the end of the transaction,
        everything goes to the writer, so the session reads its own writes
    :param refuse_stale_writes: see :func:`~sa_sqlite_pool.routing_sessionmaker`

    ``ended_after`` is set when the block that gave out the session has ended, to the name of the
    block, such as ``db.write()``: the session then refuses to begin another transaction.
    """

    def __init__(
        self,
        bind: Engine | Connection | None = None,
        *,
        writer: Engine | AsyncEngine,
        reader: Engine | AsyncEngine,
        role: str | Role = "auto",
        refuse_stale_writes: bool = False,
        **kw: Any,
    ) -> None:
        if kw.get("twophase"):
            raise twophase_refused()
        self.writer: Engine = writer.sync_engine if isinstance(writer, AsyncEngine) else writer
        self.reader: Engine = reader.sync_engine if isinstance(reader, AsyncEngine) else reader
        self.role: Role = role if isinstance(role, Role) else Role.parse("role", role)
        if refuse_stale_writes:
            assert_staleness_can_be_told(self.writer, self.reader)
        self._refuse_stale_writes = refuse_stale_writes
        self._routes = self.role is Role.AUTO and self.writer is not self.reader
        self._writer_is_bound = False  # by binds=, to some class or table
        self._left_open: list[Connection] = []
        self._on_postgresql = self.reader.dialect.name == "postgresql"
        self._streams = None if isinstance(self.reader.pool, FairPool) else OpenStreams()
        self._temp_use: Target | None = None  # of the statement of the last get_bind()
        self._temp_before: frozenset[str] | None = None  # the names before it, until it has run
        self.ended_after: str | None = None
        if bind is None or bind is self.writer:
            bind = self.reader if self.role is Role.READER else self.writer
        super().__init__(bind=bind, **kw)

    # -- questions ------------------------------------------------------------------------------

    def get_bind(self, mapper: Any = None, **kw: Any) -> Engine | Connection:
        """Return the engine for a statement, as SQLAlchemy does; this checks out no connection.

        A statement is routed only if SQLAlchemy would send it to the writer by default. A ``bind``
        of the statement, ``binds``, and the engine that a subclass returns take precedence.
        """
        self._temp_use = None
        bound = super().get_bind(mapper, **kw)
        if not self._routes or bound is not self.writer or kw.get("bind") is not None:
            return bound
        if self._writer_is_bound and self._is_bound_by_name(mapper, kw):
            return bound
        clause = kw.get("clause")
        transaction = self.get_transaction()
        if not isinstance(transaction, RoutedTransaction):
            return self._route(clause, mapper, frozenset())
        if not transaction.on_writer:
            return self._route(clause, mapper, transaction.temp_objects)
        if transaction.temp_objects:
            return self._route_beside_temp_objects(clause, transaction.temp_objects)
        return bound

    def _route(self, clause: Any, mapper: Any, temp_objects: Any) -> Engine:
        # A flush writes, so its own reads go to the writer, too.
        if only_reads(clause, on_postgresql=self._on_postgresql) and not self._flushing:
            return self.reader
        if clause is None:
            table = None if mapper is None else getattr(mapper, "local_table", None)
            name = str(getattr(table, "name", "")).lower()
            return self.reader if name in temp_objects else self.writer
        if not isinstance(self.reader.pool, ReaderPool):  # other readers refuse temp tables
            return self.writer
        target = target_of(clause, self.reader.dialect)
        if target is None or not target.is_among(temp_objects):
            return self._route_to_writer(clause, temp_objects)
        self._temp_use = target
        return self.reader

    def _route_to_writer(self, clause: Any, temp_objects: Collection[str]) -> Engine:
        """Return the writer; note a use of the reader's temp tables, which it cannot see."""
        if temp_objects and (name := mentioned(clause, temp_objects)):
            self._temp_use = Target(_OUT_OF_REACH, name, temporary=True)
        return self.writer

    def _route_beside_temp_objects(self, clause: Any, temp_objects: set[str]) -> Engine:
        target = target_of(clause, self.reader.dialect)
        if target is not None and target.verb == "DROP" and target.is_among(temp_objects):
            self._temp_use = target
            return self.reader
        return self._route_to_writer(clause, temp_objects)

    def _is_bound_by_name(self, mapper: Any, kw: Mapping[str, Any]) -> bool:
        """Return whether ``binds`` select the writer, not just the default."""
        default, self.bind = self.bind, None
        try:
            super().get_bind(mapper, **kw)
        except UnboundExecutionError:
            return False
        finally:
            self.bind = default
        return True

    def _add_bind(self, key: Any, bind: Any) -> None:
        super()._add_bind(key, bind)
        self._writer_is_bound = self._writer_is_bound or bind is self.writer

    # -- connections ----------------------------------------------------------------------------

    def _connection_for_bind(
        self, engine: Any, execution_options: Any = None, **kw: Any
    ) -> Connection:
        """Return a connection; the decision of get_bind() takes effect here, and nowhere else.

        SQLAlchemy calls this for a statement and for ``connection()``. A flush calls the method of
        its ``SessionTransaction``, which uses the writer.
        """
        use, self._temp_use = self._temp_use, None
        if engine is self.reader and self._routes:
            return self._reader_connection(execution_options, use)
        if use is not None and use.verb == _OUT_OF_REACH:
            raise InvalidRequestError(
                f"the temp table {use.name!r} belongs to the reader connection of this session, "
                "but its first write and everything after it go to the writer, which does not see "
                'the table; use role="writer" from the start, or create the table after the first '
                "write"
            )
        return super()._connection_for_bind(engine, execution_options, **kw)

    def _reader_connection(self, execution_options: Any, use: Target | None) -> Connection:
        assert_block_is_open(self)
        current = self._transaction or self._autobegin_t()
        if not current.is_active:  # SQLAlchemy's method raises, and names the reason
            return super()._connection_for_bind(self.reader, execution_options)
        transaction = self.get_transaction()
        assert isinstance(transaction, RoutedTransaction)
        connection = transaction.reader_connection(execution_options)
        if use is not None:
            self._temp_before = frozenset(transaction.temp_objects)
            use.apply_to(transaction.temp_objects)
        return connection

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        """Return a connection as SQLAlchemy does; without a bind, the writer's, for any use."""
        self._temp_use = None  # left by a statement that was not executed
        return super().connection(bind_arguments, execution_options)

    def _execute_internal(self, statement: Any, params: Any = None, **kw: Any) -> Any:
        """Execute a statement of ``execute()``, ``scalar()``, ``scalars()``, queries or loaders."""
        if kw.get("_add_event") is not None and self._routes:
            # synchronize_session="fetch" without RETURNING: the rows to change are read on the same
            # engine that will change them (BulkUDCompileState in SQLAlchemy's bulk_persistence.py).
            arguments = dict(kw.get("bind_arguments") or {})
            arguments.setdefault("bind", self.get_bind(**arguments))
            kw["bind_arguments"] = arguments
        try:
            if not self._on_postgresql:
                result = super()._execute_internal(statement, params, **kw)
            else:
                result = self._execute_unless_refused(statement, params, **kw)
        except BaseException:
            if self._temp_before is not None:
                self._restore_temp_objects(self._temp_before)
            raise
        finally:
            self._temp_before = None
        if self._streams is not None and self._routes:
            self._streams.note(result)
        return result

    def _restore_temp_objects(self, names: Collection[str]) -> None:
        """Restore the names before a statement that failed: it created and dropped nothing."""
        transaction = self.get_transaction()
        if isinstance(transaction, RoutedTransaction):
            transaction.temp_objects.clear()
            transaction.temp_objects.update(names)

    def _execute_unless_refused(self, statement: Any, params: Any, **kw: Any) -> Any:
        """Execute a statement; if a replica refuses it as a write, retry it once on the writer.

        Only the first statement of a transaction is retried: the writer's snapshot differs from the
        one that the session has read. The event ``do_orm_execute`` reports both executions.
        """
        reads_before = self._reads
        try:
            return super()._execute_internal(statement, params, **kw)
        except Exception as error:
            arguments = kw.get("bind_arguments") or {}
            if self._reads != reads_before:
                self._note_failed_read()
            if not is_refused_write(error):
                raise
            if self.role is Role.READER:
                raise_forbidden_write(error, USE_A_WRITER)
            if self._reads == reads_before:
                raise
            if arguments.get("bind") is not None:  # the caller has chosen the engine
                raise_forbidden_write(error, USE_A_WRITER)
            if self._reads > 1:
                raise_forbidden_write(error, BEGIN_AS_WRITER)
        arguments = {**arguments, "bind": self.writer}
        return super()._execute_internal(statement, params, **{**kw, "bind_arguments": arguments})

    @property
    def _reads(self) -> int:
        """The number of the transaction's statements that have gone to the reader."""
        transaction = self.get_transaction()
        return transaction.reads if isinstance(transaction, RoutedTransaction) else 0

    def _note_failed_read(self) -> None:
        transaction = self.get_transaction()
        if isinstance(transaction, RoutedTransaction):
            transaction.note_failed_read()

    def flush(self, objects: Any = None) -> None:
        """Flush as SQLAlchemy does; if a reader refuses, raise the error of SQLite's readers."""
        try:
            super().flush(objects)
        except DBAPIError as error:
            reads_only = self._on_postgresql and self.role is Role.READER
            if reads_only and is_refused_write(error):
                raise_forbidden_write(error, USE_A_WRITER)
            raise

    # -- begin and close ------------------------------------------------------------------------

    def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
        if self.ended_after is not None:
            block = "read" if self.role is Role.READER else "write"
            raise SessionEndedError(
                f"this session came from {self.ended_after}, whose block has ended; begin a new "
                f"one where it is needed, including in a background task: async with db.{block}() "
                "as session: …"
            )
        if self._transaction is None and self._routes and (begin or self.autobegin):
            return RoutedTransaction(
                self,
                SessionTransactionOrigin.BEGIN if begin else SessionTransactionOrigin.AUTOBEGIN,
                self.writer,
                self.reader,
                self._left_open,
                self._streams,
                refuse_stale_writes=self._refuse_stale_writes,
            )
        return super()._autobegin_t(begin)

    def _close_impl(self, invalidate: bool, is_reset: bool = False) -> None:
        try:
            super()._close_impl(invalidate, is_reset)
        finally:
            if self._left_open:
                close_all(self._left_open)


_READERS = (Role.READER, Role.READER.value)


class RoutedAsyncSession(LeanSession):
    """An ``AsyncSession`` with two engines: see :func:`~sa_sqlite_pool.routing_sessionmaker`."""

    sync_session_class = RoutedSession

    _engines: tuple[AsyncEngine, ...] = ()

    def __init__(
        self,
        bind: AsyncEngine | AsyncConnection | None = None,
        *,
        writer: AsyncEngine,
        reader: AsyncEngine,
        role: str | Role = "auto",
        sync_session_class: type[Session] | None = None,
        **kw: Any,
    ) -> None:
        self._engines = (writer, reader)
        if sync_session_class is not None:
            given: Any = sync_session_class
            kw["sync_session_class"] = composed(given, Session, RoutedSession)
        if bind is None or bind is writer:
            bind = reader if role in _READERS else writer
        super().__init__(bind, writer=writer, reader=reader, role=role, **kw)

    def _translate_for_bind(self, bind: Any) -> Any:
        # For get_async_bind(), since SQLAlchemy 2.1.
        for engine in self._engines:
            if bind is engine.sync_engine:
                return engine
        return super()._translate_for_bind(bind)
