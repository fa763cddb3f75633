"""The base class of the server pools: a permit in order of arrival, then a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ClassVar

from sqlalchemy import Connection, Dialect, Engine, event, exc
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection
from sqlalchemy.util import await_only

from ..compat.without_loop import refuse_without_loop
from ..pools.idle import IdleWatch
from ..system.clock import time
from ..turn.permit import Permit
from ..turn.waits import WaitedFor, WaitWatch
from ..turn.whereabouts import caller
from .connections.checked_out import CheckedOut, Held
from .connections.counts import PoolCounts
from .connections.records import ServerRecord, record_of, server_behind, server_of
from .connections.server import Server
from .drivers.answers import AnswerLimit
from .drivers.choosing import driver_of
from .drivers.interface import Driver

DEFAULT_CONNECTIONS = 4


class ServerPool(Pool):
    """Base class of this package's server pools; a subclass chooses the server of each checkout.

    :param creator: the creator of ``create_async_engine``, which connects to the engine's URL; it
        is not used, since each server has its own
    :param servers: the servers, the primary last; shared with the pool that replaces this one after
        ``dispose()``, unless nothing was closed
    :param checked_out: the checked-out connections; shared in the same way
    :param timeout: seconds that a checkout waits for a permit
    :param engines: the engines of the database, to look for the holders of locks
    :param owner: the object on whose behalf tasks wait, and whose ``fresh()`` blocks count
    :param statement_timeout: seconds a statement may run, unless its options say otherwise
    :param idle_warning: seconds after which an idle transaction is logged
    :param use_lifo: whether the connection that was returned last is checked out first
    :param counts: the counters; shared with the pool that replaces this one after ``dispose()``,
        but not with the pool of a child process
    """

    timeout_error: ClassVar[type[exc.TimeoutError]]
    waited_for: ClassVar[WaitedFor]
    option: ClassVar[str]
    only_reads: ClassVar[bool] = False
    _sqla_logger_namespace: ClassVar[str] = "sqlalchemy.pool.impl.ServerPool"

    def __init__(
        self,
        creator: Callable[..., Any],
        servers: tuple[Server, ...],
        timeout: float,
        engines: Sequence[Engine],
        owner: object,
        wait_watch: WaitWatch,
        statement_timeout: float | None = None,
        idle_warning: float | None = None,
        counts: PoolCounts | None = None,
        checked_out: CheckedOut | None = None,
        use_lifo: bool = True,
        **kw: Any,
    ) -> None:
        super().__init__(self._open, **kw)  # type: ignore[arg-type]
        self._engine_creator = creator
        self.driver: Driver = driver_of(kw["dialect"])
        self.statement_timeout = statement_timeout
        self.counts = counts or PoolCounts(only_reads=self.only_reads)
        self.servers = servers
        self._timeout = timeout
        self._use_lifo = use_lifo
        self.engines = engines
        self._owner = owner
        self.wait_watch = wait_watch
        self.checked_out = checked_out or CheckedOut()
        self._idle_warning = idle_warning
        self._idle_watch = IdleWatch(
            self.checked_out.held.values(),
            idle_warning,
            label=lambda: servers[-1].name,
            waiting=lambda: sum(server.line.waiting for server in servers),
            holds_turn=not self.only_reads and self.primary.capacity == 1,
            product="PostgreSQL",
        )
        self._disposed = False
        self._process = os.getpid()
        if "_dispatch" not in kw:  # else it belongs to the pool that this one replaces
            event.listen(self, "invalidate", _count_thrown_away)

    def __repr__(self) -> str:
        names = ", ".join(server.name for server in self.servers)
        return f"<{type(self).__name__} {names}: {self.status()}>"

    def status(self) -> str:
        """Return the numbers of connections as text."""
        at_rest = sum(len(server.at_rest) for server in self.servers)
        waiting = sum(server.line.waiting for server in self.servers)
        return f"{self.checkedout()} checked out, {at_rest} at rest, {waiting} waiting"

    @property
    def primary(self) -> Server:
        """The server for writes, and for reads while no replica can be used."""
        return self.servers[-1]

    @property
    def timeout(self) -> float:
        """The seconds that a checkout waits for a permit."""
        return self._timeout

    @property
    def lock_timeout(self) -> float | None:
        """The seconds that a statement waits for a lock, None for no limit."""
        return None if self.only_reads else self.timeout

    @property
    def error(self) -> type[Exception]:
        """The driver's error for a connection that has ended."""
        dialect: Any = self._dialect
        found: type[Exception] = dialect.loaded_dbapi.OperationalError
        return found

    def checkedout(self) -> int:
        """Return the number of connections that are checked out."""
        return len(self.checked_out.permits)

    # -- checkouts ------------------------------------------------------------------------------

    def _take(self, server: Server) -> ConnectionPoolEntry:
        """Return a connection to ``server``; wait for a permit at most ``timeout`` seconds.

        Raise the error of the driver if the server does not respond.
        """
        permit = server.line.acquire_nowait()
        if permit is None:
            permit = await_only(self._wait_in_line(server))
        return self._connected(server, permit)

    def _connected(self, server: Server, permit: Permit) -> ConnectionPoolEntry:
        record = None
        try:
            if permit.asked_at is None:  # it did not have to wait
                permit.asked_at = caller()
            if (refusal := self.checked_out.refusal) is not None:  # set during the wait
                raise refusal()
            record = self._at_rest(server) or ServerRecord(self, server)
            self.checked_out.begin(record, permit)
            record.get_connection()
            record.end_setting_up(self.driver)
            if (refusal := self.checked_out.refusal) is not None:  # the pool was closed meanwhile
                record.close()
                raise refusal()
            permit.idle_since = time.monotonic()  # not while it was opened
            self.checked_out.held[record] = Held(permit, record, self.driver)
            if permit.loop is not self._idle_watch.loop:
                self._idle_watch.checkout_began()
        except BaseException as error:
            try:
                if record is not None:  # a listener may have raised on a connection that is open
                    self.checked_out.end(record)
                    record.invalidate(error)
            finally:
                server.line.release(permit)
                self.checked_out.has_returned()
            refusal = self.checked_out.refusal
            if refusal is not None and isinstance(error, Exception):
                raise refusal() from error
            raise
        return record

    def _at_rest(self, server: Server) -> ServerRecord | None:
        """Return a connection at rest that the server has not closed; None if there is none."""
        while server.at_rest:
            record = server.at_rest.pop(-1 if self._use_lifo else 0)
            connection = record.dbapi_connection
            if connection is None or not self.driver.is_broken(connection):
                assert isinstance(record, ServerRecord)
                return record
            server.forget_position()  # it may have restarted
            record.invalidate()
        return None

    def _open(self, connection_record: ConnectionPoolEntry) -> Any:
        assert isinstance(self._dialect, Dialect)
        opened = server_of(connection_record).connect(self._dialect, connection_record)
        assert isinstance(connection_record, ServerRecord)
        connection_record.note_new(opened)
        return opened

    def connect(self) -> PoolProxiedConnection:
        begun = self.checked_out.begun
        try:
            proxied = super().connect()
        except BaseException as error:
            self.checked_out.give_back_lost(begun)
            if isinstance(error, RuntimeError):
                refuse_without_loop()
            raise
        record = record_of(proxied)
        if record is None:  # a listener of "checkout" has detached it
            return proxied
        try:  # pool_pre_ping or a listener of "checkout" may have reopened it
            record.end_setting_up(self.driver)
        except BaseException as error:
            proxied.invalidate(error)
            raise
        record.received = True
        record.server.checkouts += 1  # the pool's own position queries do not count
        return proxied

    def _wait_in_line(self, server: Server) -> Coroutine[Any, Any, Permit]:
        self._before_waiting(server)
        return self.wait_watch.in_line(
            *(server.line, self.waited_for, server.name, self._owner),
            timeout=self.timeout,
            not_in_time=lambda: self._not_in_time(server),
        )

    def _before_waiting(self, server: Server) -> None:
        """Raise an error if the task would wait for itself."""

    def _not_in_time(self, server: Server) -> exc.TimeoutError:
        return self.timeout_error(
            f"waited {self.timeout:.2f} s for one of the {server.capacity} connections to "
            f"{server.name}; they have been held for {server.line.describe_holders()}, "
            f"{server.line.waiting} more waiting in line; return connections sooner, or raise "
            f"{self.option}"
        )

    def is_out(self, record: ConnectionPoolEntry) -> bool:
        """Return whether a record is checked out, or its connection is being opened."""
        return record in self.checked_out.permits

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        permit = self.checked_out.end(record)
        if permit is None:  # it was returned before
            return
        server = server_of(record)
        try:
            if self._disposed or self.checked_out.refusal is not None:
                record.close()
            elif record.dbapi_connection is None:  # SQLAlchemy may still be using it
                pass
            elif self.driver.is_broken(record.dbapi_connection):
                record.invalidate()
            elif self.driver.in_transaction(record.dbapi_connection):
                # It was not reset: after an error of a listener, SQLAlchemy believes that it has
                # committed. The next checkout would commit what is in the transaction.
                record.invalidate()
            else:
                server.at_rest.append(record)
        finally:
            server.line.release(permit)
            self.checked_out.has_returned()

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: BaseException | None = None,
        _checkin: bool = True,
    ) -> None:
        """Invalidate all connections to the same server, since this one was found to be broken.

        SQLAlchemy's method invalidates the whole pool.
        """
        if (server := server_behind(connection)) is not None:
            server.forget_position()
            for record in [*server.at_rest, *self.checked_out.permits]:
                if server_of(record) is server and record.dbapi_connection is not None:
                    record.invalidate(exception, soft=True)
        if _checkin and connection.is_valid:
            connection.invalidate(exception)

    def permit_of(self, proxied: PoolProxiedConnection) -> Permit | None:
        """Return the permit under which a connection is checked out."""
        return self.checked_out.permits.get(record_of(proxied))

    def has_checked_out(self, proxied: PoolProxiedConnection) -> bool:
        """Return whether a connection is checked out, rather than being set up by SQLAlchemy."""
        record = record_of(proxied)
        return record in self.checked_out.permits and record.in_use

    def name_of_server(self, connection: Connection | None) -> str:
        """Return the name of a connection's server, or the primary's if that is not known."""
        server = None
        if not (connection is None or connection.closed or connection.invalidated):
            server = server_behind(connection.connection)
        return (self.primary if server is None else server).name

    @contextlib.contextmanager
    def opened_aside(self, server: Server) -> Iterator[Any]:
        """Open a connection to ``server`` outside the pool, for queries. Must run in a greenlet."""
        assert isinstance(self._dialect, Dialect)
        connection = server.connect(self._dialect, ServerRecord(self, server))
        try:
            yield connection
        finally:
            self.driver.drop(connection.driver_connection)

    # -- servers that do not respond -------------------------------------------------------------

    def give_up(
        self, proxied: PoolProxiedConnection, error: Exception | None, *, silent: bool
    ) -> None:
        """Close a broken connection; ``silent`` says that its server does not respond."""
        if silent:
            self.note_silent(proxied.dbapi_connection)
        self._invalidate(proxied, error)

    def note_silent(self, connection: Any) -> None:
        """Record that the server of a connection did not respond in time."""
        for record in [
            *self.checked_out.permits,
            *(r for server in self.servers for r in server.at_rest),
        ]:
            if record.dbapi_connection is connection:
                self.is_silent(server_of(record))
                return

    def is_silent(self, server: Server) -> None:
        """Handle a server that does not respond."""

    # -- for the owner of the engine ------------------------------------------------------------

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` from now on in every checkout, including those that wait in line."""
        self.checked_out.refusal = error
        self._stop()
        for server in self.servers:
            server.line.send_away(self._owner, error)

    def admit(self) -> None:
        """Allow checkouts again, after :meth:`refuse` and :meth:`dispose`."""
        self.checked_out.refusal = None

    def collect_abandoned(self) -> None:
        """Run the garbage collector if a task has ended and left its connection checked out."""
        for server in self.servers:
            server.line.collect_abandoned()

    def abort(self) -> None:
        """Break the checked-out connections: their tasks get errors, and their transactions end."""
        for record in list(self.checked_out.permits):
            if record.dbapi_connection is not None:
                self.driver.abort(record.dbapi_connection)
        for server in self.servers:
            server.openings.call_off()

    def dispose(self) -> None:
        """Close the connections at rest now, and the others when they are returned.

        A cancellation is raised after all are closed. SQLAlchemy's engine then keeps this pool, so
        it stays in use: checked-out connections return to rest.
        """
        self._disposed = True
        cancelled: asyncio.CancelledError | None = None
        for server in self.servers:
            server.forget_position()
        with contextlib.ExitStack() as together:  # a frozen server would delay each in turn
            resting = [record for server in self.servers for record in server.at_rest]
            for record in resting:
                if record.dbapi_connection is not None:
                    together.enter_context(AnswerLimit(self.driver, record.dbapi_connection))
            for server in self.servers:
                while server.at_rest:
                    try:
                        server.at_rest.pop().close()
                    except asyncio.CancelledError as error:
                        cancelled = cancelled or error
        if cancelled is not None:
            self._disposed = False
            raise cancelled

    def recreate(self) -> ServerPool:
        """Return the pool that replaces this one.

        If this pool was not disposed of, the two share nothing: it may belong to a parent process,
        whose connections this process inherits and must not touch (``dispose(close=False)``). In a
        child process, the counters start from zero.
        """
        servers, checked_out = self.servers, self.checked_out
        counts: PoolCounts | None = self.counts
        is_of_parent = self._process != os.getpid()
        if not is_of_parent:
            self._stop()
        if not self._disposed:
            servers = tuple(server.another(counts_on=not is_of_parent) for server in servers)
            checked_out = CheckedOut(checked_out.refusal)
            if is_of_parent:
                _of_other_processes.append(self)
                counts = None
        return type(self)(
            self._engine_creator,
            servers=servers,
            checked_out=checked_out,
            timeout=self._timeout,
            engines=self.engines,
            owner=self._owner,
            wait_watch=self.wait_watch,
            statement_timeout=self.statement_timeout,
            idle_warning=self._idle_warning,
            counts=counts,
            use_lifo=self._use_lifo,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
            **self._own_options(),
        )

    def _stop(self) -> None:
        """Stop this pool's background work, because it is closed or being replaced."""

    def _own_options(self) -> dict[str, Any]:
        """Return the options of the subclass."""
        return {}


def pool_of(engine: Engine, proxied: Any) -> ServerPool:
    """Return the pool that a connection of ``engine`` belongs to.

    Another pool may have replaced it in the engine since: ``dispose(close=False)``.
    """
    pool = getattr(proxied, "_pool", engine.pool)
    assert isinstance(pool, ServerPool)
    return pool


# Closing an asyncpg connection would remove it from the epoll instance that the processes share.
_of_other_processes: list[ServerPool] = []


def _count_thrown_away(_connection: Any, record: ConnectionPoolEntry, _error: object) -> None:
    server_of(record).thrown_away += 1
