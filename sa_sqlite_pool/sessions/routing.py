"""Door 2: a session maker over two engines.

Nothing here depends on SQLite: an application that outgrows one machine points ``writer`` at a
PostgreSQL primary and ``reader`` at its replicas, and keeps its code.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from ..driver.adapter import SQLiteConnection
from ..errors import ConfigurationError, StaleReadError
from ..settings import Role
from .lean import LeanSession
from .reads import only_reads


class RoutedSession(Session):
    """The synchronous session inside a :class:`RoutedAsyncSession`.

    :param role: ``"writer"`` and ``"reader"`` send everything to that engine. ``"auto"`` sends
        reads to the reader until the first write; from then to the end of the transaction
        everything goes to the writer, so that the session reads what it wrote.
    :param refuse_stale_writes: see :func:`routing_sessionmaker`
    """

    def __init__(
        self,
        bind: Engine | Connection | None = None,
        *,
        writer: Engine,
        reader: Engine,
        role: str = "auto",
        refuse_stale_writes: bool = False,
        **kw: Any,
    ) -> None:
        self.writer = writer
        self.reader = reader
        self.role = Role.parse("role", role)
        self._refuse_stale_writes = refuse_stale_writes
        # Both belong to the transaction and go with it: _forget_routes()
        self._on_writer = False
        self._has_read = False
        super().__init__(bind=bind, **kw)

    def get_bind(
        self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **kw: Any
    ) -> Engine | Connection:
        """The engine for a statement: SQLAlchemy's documented hook for custom routing."""
        if bind is not None:
            return bind  # type: ignore[no-any-return]
        if self.role is not Role.AUTO:
            return self.writer if self.role is Role.WRITER else self.reader
        if not self._on_writer and only_reads(clause):
            self._has_read = True
            return self.reader
        if not self._on_writer:
            self._go_to_writer()
        return self.writer

    def _go_to_writer(self) -> None:
        if self._has_read:
            reader = self.connection({"bind": self.reader}).connection.dbapi_connection
            if isinstance(reader, SQLiteConnection):
                self._leave_reader(reader)
            elif self._refuse_stale_writes:
                raise ConfigurationError("refuse_stale_writes needs this package's pools")
        self._on_writer = True

    def _leave_reader(self, reader: SQLiteConnection) -> None:
        # Reader                        | Writer                    | Somebody else
        # SELECT balance → 10           |                           |
        # which version is it of?       |                           |
        # end the snapshot              |                           |
        #                               |                           | UPDATE …; COMMIT
        #                               | BEGIN IMMEDIATE           | (cannot commit any more)
        # is it today's?                |                           |
        # The snapshot ends first: without WAL, whoever has the turn cannot commit before that.
        if not self._refuse_stale_writes:
            reader.end_read()
            return
        seen = reader.data_version()
        reader.end_read()
        self.connection({"bind": self.writer}).exec_driver_sql("SELECT 1")
        if reader.data_version() != seen:
            raise StaleReadError(
                "this session read before it wrote, and somebody else has committed in between, "
                "so what it read may be out of date; nothing was written: retry the transaction, "
                'or use role="writer" from its start'
            )

    def _forget_routes(self) -> None:
        self._on_writer = False
        self._has_read = False


@event.listens_for(RoutedSession, "after_transaction_end")
def _transaction_ended(session: RoutedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:  # not a SAVEPOINT
        session._forget_routes()


class RoutedAsyncSession(LeanSession):
    """What :func:`routing_sessionmaker` makes: an ``AsyncSession`` over two engines."""

    sync_session_class = RoutedSession


def routing_sessionmaker(
    *,
    writer: AsyncEngine,
    reader: AsyncEngine,
    class_: type[AsyncSession] = RoutedAsyncSession,
    expire_on_commit: bool = False,
    refuse_stale_writes: bool = False,
    **kw: Any,
) -> async_sessionmaker[AsyncSession]:
    """An ``async_sessionmaker`` whose sessions know a writer and a reader engine.

    ``Session()`` is an auto session: reads go to the reader until the first write (flush, DML,
    DDL, text that is not a read, ``with_for_update``, ``session.connection()``), then all goes to
    the writer until the transaction ends. ``Session(role="writer")`` and ``Session(role="reader")``
    decide it from the start.

    :param class_: a subclass of :class:`RoutedAsyncSession`
    :param expire_on_commit: False by default: what expired would be loaded again on attribute
        access, which an asyncio session cannot do
    :param refuse_stale_writes: an auto session that read, then wants to write, gets a
        :class:`~sa_sqlite_pool.StaleReadError` if anybody committed in between, instead of
        overwriting what it has not seen
    :param kw: whatever ``Session`` takes
    """
    for name, engine in (("writer", writer), ("reader", reader)):
        if not isinstance(engine, AsyncEngine):
            raise ConfigurationError(f"{name} must be an AsyncEngine, not {engine!r}")
    if not issubclass(class_.sync_session_class, RoutedSession):
        raise ConfigurationError(f"{class_.__name__} must derive from RoutedAsyncSession")
    return async_sessionmaker(
        writer,
        class_=class_,
        expire_on_commit=expire_on_commit,
        writer=writer.sync_engine,
        reader=reader.sync_engine,
        refuse_stale_writes=refuse_stale_writes,
        **kw,
    )
