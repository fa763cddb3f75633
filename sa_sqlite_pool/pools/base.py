"""The base class of the pools: a fair line, warm connections first, clear errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any, ClassVar

from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from ..compat.without_loop import refuse_without_loop
from ..errors import PoolTimeout
from ..execution.loop_budget import LoopBudget
from ..files.location import Location
from ..files.private_directory import PrivateDirectory
from ..opening.connector import Connector
from ..settings import (
    DEFAULT_IDLE_WARNING,
    DEFAULT_PLACEMENT,
    DEFAULT_PRAGMAS,
    DEFAULT_SLOW_WAIT_WARNING,
    DEFAULT_TIMEOUT,
    NOT_GIVEN,
    ConnectionSettings,
    NotGiven,
    OnConnect,
    Placement,
    PragmaValue,
    Role,
    WalSettings,
    check_limit,
    check_wal_settings,
    merge_pragmas,
)
from ..system.exits import close_at_exit
from ..system.forks import prepare_before_fork, renew_after_fork
from ..system.loop_state import of_running_loop
from ..turn.fair_semaphore import FairSemaphore
from ..turn.permit import Permit
from ..turn.waits import UNWATCHED, WaitedFor
from .at_once import ReadsAtOnce
from .checkouts import Checkouts
from .dialect import prepare_dialect
from .idle import IdleWatch
from .resting import IdleConnections, KeptConnections
from .returns import TakesBack

# True in a task that borrows a connection on behalf of others, which have their own time limits.
waits_for_others: ContextVar[bool] = ContextVar("sa_sqlite_pool_for_others", default=False)


class FairPool(ReadsAtOnce, TakesBack):
    """Base class of the pools: a task acquires a permit, in order of arrival, then a connection.

    ``QueuePool`` lets its callers wait in ``asyncio.Queue.get``, where a newcomer may take the
    connection that a waiter was woken for, and where a failed connect wakes no waiter. Here, a task
    that holds a permit always finds a connection at rest, or room to open one.

    This class has its own line; :class:`WriterPool` uses the write turn's. Checkouts are here;
    check-ins, ``dispose()`` and closing before a fork are in :class:`~.returns.TakesBack`; the
    state of the engine and the file, and how connections to it are opened, is in
    :class:`~.on_file.OnFile`; reads without a checkout are in :class:`~.at_once.ReadsAtOnce`.

    :param timeout: ``pool_timeout``: seconds to wait for a connection, by default ``read_timeout``,
        for a :class:`WriterPool` ``write_timeout``; None: no limit
    :param pragmas: override the defaults; checked at once
    :param write_timeout: seconds to wait for the right to write, and for SQLite's lock; the default
        is 30, or SQLite's busy timeout if the application has set a longer one with
        ``connect_args={"timeout": …}`` or a PRAGMA
    :param read_timeout: seconds to wait for a reader, and for SQLite's lock; likewise
    :param on_connect: called with each new ``sqlite3.Connection`` in its own thread
    :param statement_timeout: seconds a statement may run before it is stopped; None: no limit.
        The execution option of the same name applies to one statement, connection or engine
    :param idle_warning: seconds a transaction may be idle before the logger ``sa_sqlite_pool``
        names its task and the place of its checkout; None: never
    :param slow_wait_warning: seconds a task may wait for the write turn or a connection before the
        same logger names it, its line, and what blocked it; None: never
    :param slow_statement_warning: seconds a statement may run before the same logger names it and
        the line that executed it; None: never
    :param wal: how large the write-ahead log may grow. All engines of the process on a file share
        one keeper of its log, which uses the settings of the writing engine created last
    :param file_turn: wait in line with the writers of other processes, too, using locks on two
        files beside the database; False leaves them to SQLite's own lock, which keeps no order
    :param placement: ``"auto"`` runs statements that are known to be short on the event loop itself
        and all others in a thread; ``"thread"`` runs all in a thread; ``"inline"`` none, however
        long they take, for a program whose loop has nothing else to do
    """

    default_pragmas: ClassVar[Mapping[str, PragmaValue]] = DEFAULT_PRAGMAS
    _pool: IdleConnections
    _sqla_logger_namespace: ClassVar[str]
    _timeout: float | None  # type: ignore[assignment]

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | NotGiven | None = NOT_GIVEN,
        use_lifo: bool = True,
        pragmas: Mapping[str, PragmaValue] | None = None,
        write_timeout: float | None = None,
        read_timeout: float | None = None,
        on_connect: OnConnect | None = None,
        statement_timeout: float | None = None,
        idle_warning: float | None = DEFAULT_IDLE_WARNING,
        wal: WalSettings | None = None,
        file_turn: bool = True,
        placement: str = DEFAULT_PLACEMENT,
        slow_wait_warning: float | None = DEFAULT_SLOW_WAIT_WARNING,
        slow_statement_warning: float | None = None,
        _connector: Connector | None = None,
        **kw: Any,
    ) -> None:
        if _connector is None:
            settings = ConnectionSettings(
                merge_pragmas(self.default_pragmas, pragmas),
                DEFAULT_TIMEOUT if write_timeout is None else write_timeout,
                DEFAULT_TIMEOUT if read_timeout is None else read_timeout,
                on_connect,
                statement_timeout,
                idle_warning,
                check_wal_settings(wal),
                file_turn,
                Placement.parse(placement),
                slow_wait_warning,
                slow_statement_warning,
                pragmas_by_default=frozenset(self.default_pragmas).difference(pragmas or ()),
                write_timeout_given=write_timeout is not None,
                read_timeout_given=read_timeout is not None,
            )
            _connector = Connector(self.role, settings, creator)
            prepare_dialect(kw.get("dialect"), _connector)
        self._connector = _connector
        self._stock_creator = creator
        self._own_line = FairSemaphore(_capacity(pool_size, max_overflow))
        self._checkouts = Checkouts()
        self._idle_watch = IdleWatch(
            self._checkouts,
            _connector.settings.idle_warning,
            label=lambda: _connector.location.label,
            waiting=lambda: self.waiting,
            holds_turn=self.role is Role.WRITER,
        )
        self._kept = KeptConnections()
        self._first_opening = FairSemaphore(1)
        self._has_opened = False
        self._disposed = False
        self._uses_loop = _connector.settings.placement is not Placement.THREAD
        if isinstance(timeout, NotGiven):
            timeout = self._default_timeout(_connector.settings)
        super().__init__(
            self._open,
            pool_size=pool_size,
            max_overflow=max_overflow,
            timeout=check_limit("pool_timeout", timeout),  # type: ignore[arg-type]
            use_lifo=use_lifo,
            **kw,
        )
        prepare_before_fork(self)
        close_at_exit(self, reads=self.role is Role.READER)
        renew_after_fork(self)

    def __repr__(self) -> str:
        found = self._connector.known_location
        label = "" if found is None else f" {found.label}"
        return (
            f"<{type(self).__name__}{label}, {self.checkedout()} checked out, "
            f"{self.checkedin()} at rest, {self.waiting} waiting>"
        )

    # -- for subclasses -------------------------------------------------------------------------

    def __init_subclass__(cls) -> None:
        # The logger name that getLogger("sqlalchemy.pool") and echo_pool expect of a pool.
        cls._sqla_logger_namespace = f"sqlalchemy.pool.impl.{cls.__name__}"

    timeout_error: ClassVar[type[PoolTimeout]] = PoolTimeout
    waited_for: ClassVar[WaitedFor] = WaitedFor.CONNECTION
    limits: ClassVar[str] = "pool_size or pool_timeout"  # options, for messages

    def _default_timeout(self, settings: ConnectionSettings) -> float:
        """Return how many seconds a checkout waits if ``pool_timeout`` is not given."""
        return settings.read_timeout

    @cached_property
    def _line(self) -> FairSemaphore:
        """The semaphore that grants permits for connections."""
        return self._own_line

    def _acquire(self, waited: float) -> Coroutine[Any, Any, Permit]:
        """Wait for a permit for a connection; on time-out, raise an error that names the holders.

        Call this if no permit is free. ``waited``: seconds since the checkout was requested.
        """
        for_others, timeout = waits_for_others.get(), self._timeout
        watch = UNWATCHED if for_others else self.wait_watch
        return watch.in_line(
            *(self._line, self.waited_for, self._connector.location.label, self._connector),
            timeout=None if timeout is None or for_others else max(0.0, timeout - waited),
            not_in_time=self.not_in_time,
        )

    def describe_holders(self) -> str:
        """Return the holders of the connections, and how long they have held them."""
        return self._line.describe_holders()

    def not_in_time(self) -> PoolTimeout:
        """Return the time-out error, which names the holders of the connections."""
        return self.timeout_error(
            f"waited {self._timeout:.2f} s for one of the {self._line.capacity} connections of "
            f"{self._connector.location.label}; they have been held for "
            f"{self.describe_holders()}, {self._line.waiting} more waiting in line; return "
            f"connections sooner, or raise {self.limits}"
        )

    @property
    def waiting(self) -> int:
        """The number of tasks in line for a connection."""
        return self._line.waiting

    @property
    def in_use(self) -> bool:
        """True if a task has a connection, or opens one: then it has a permit, and no checkout."""
        return self._line.held > 0

    # -- for statistics -------------------------------------------------------------------------

    @property
    def line(self) -> FairSemaphore:
        """The line for the connections of this pool."""
        return self._line

    @property
    def at_rest(self) -> int:
        """The number of open connections in the pool."""
        return self._pool.at_rest

    @property
    def kept(self) -> int:
        """The number of warm connections that SQLAlchemy discarded and that will be reused."""
        return len(self._kept)

    # -- for the owner of the engine ------------------------------------------------------------

    @property
    def checkouts(self) -> Checkouts:
        """The checkouts of this pool."""
        return self._checkouts

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in every checkout from now on, including those that wait in line."""
        self._connector.refusal = error
        self._line.send_away(self._connector, error)
        if self.role is not Role.READER:
            self.database_file.turn.send_away(self._connector, error)

    def admit(self) -> None:
        """Allow checkouts again, after :meth:`refuse`."""
        self._connector.refusal = None

    def move_to(self, location: Location) -> None:
        """Open another file from now on; the pool has been made by ``dispose()``, and is empty."""
        self._connector.move_to(location)
        self._forget_file()

    def keep_directory(self, directory: PrivateDirectory | None) -> None:
        """Keep the directory of a database in memory that belongs to the facade."""
        self._connector.shared_directory = directory

    def recall(self, reason: str) -> None:
        """Recall all checkouts: stop running statements, and roll back open transactions.

        The connections are then at rest, so that they can be closed in order: if a reader is the
        last to be closed, the log stays behind.
        """
        for checkout in self._checkouts:
            if checkout.connection is not None:
                checkout.connection.give_up(reason, keep=True)

    def recall_stranded(self) -> None:
        """Recall the checkouts of tasks whose event loop is closed, which will never end them."""
        for checkout in self._checkouts:
            if checkout.permit.stranded:
                self._checkouts.take_back(checkout)

    def collect_abandoned(self) -> None:
        """Run the garbage collector if a task has ended and left its connection checked out."""
        for line in filter(None, (checkout.permit.line for checkout in self._checkouts)):
            line.collect_abandoned()

    # -- SQLAlchemy's seams ---------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        begun, proxied = self._checkouts.begun, None
        try:
            proxied = super().connect()
            checkout = self._checkouts.hand_out(proxied)
            if checkout is not None and checkout.permit.loop is not self._idle_watch.loop:
                self._idle_watch.checkout_began()
        except BaseException as error:
            if proxied is None:
                self._checkouts.give_back_lost(begun)
            else:  # for example, the application closed it at rest
                proxied.invalidate(error)
            if isinstance(error, RuntimeError):
                refuse_without_loop()
            raise
        return proxied

    def _do_get(self) -> ConnectionPoolEntry:
        budget = of_running_loop(LoopBudget) if self._uses_loop else None
        waited = 0.0 if budget is None or budget.enter_nowait() else await_only(budget.enter())
        connector = self._connector
        if (refusal := connector.refusal) is not None:
            raise refusal()
        if not connector.site.inspected_by_all:
            await_only(connector.inspect_site())  # before the turn, whose files are there, too
        if not connector.knows_file:  # the turn depends on the file
            self._find_file()
        line = self._line  # opening may find another one
        permit = line.acquire_nowait() or await_only(self._acquire(waited))
        try:
            record = self._pool.take() or self._one_more()
        except BaseException as error:
            line.release(permit)
            self._remove_left_directories()
            if (refusal := connector.refusal) is not None and isinstance(error, Exception):
                raise refusal() from error  # one in memory is gone, say
            raise
        try:
            self._checkouts.begin(record, permit, budget)
        except BaseException:  # the stack is exhausted, or a signal handler has raised it
            self._pool.put_nowait(record)
            self._checkouts.forget(record)
            line.release(permit)
            raise
        connector.counts.checkouts += 1
        if (refusal := connector.refusal) is not None:  # it was set during the wait
            self._put_back(record)  # this may wait, until it is set no more
            raise refusal()
        return record

    def _one_more(self) -> ConnectionPoolEntry:
        self._inc_overflow()
        try:
            return self._new_record()
        except BaseException:
            self._dec_overflow()
            raise

    def _new_record(self) -> ConnectionPoolEntry:
        if self._has_opened:
            return self._create_connection()
        # While SQLAlchemy queries the database over the first connection, it holds an asyncio.Lock,
        # which tasks of another event loop must not wait for.
        first = await_only(self._first_opening.acquire(None))
        assert first is not None
        try:
            record = self._create_connection()
            self._has_opened = True
            return record
        finally:
            self._first_opening.release(first)

    def recreate(self) -> FairPool:
        self.logger.info("Pool recreating")
        recreated = self.__class__(
            self._stock_creator,
            pool_size=self.size(),
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._pool.use_lifo,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
            _connector=self._connector,
        )
        recreated._own_line.waits = self._own_line.waits  # the engine's, and they only grow
        recreated._file_before = vars(self).get("database_file", self._file_before)
        return recreated


def _capacity(pool_size: int, max_overflow: int) -> int:
    # As in QueuePool, pool_size=0 means no limit, and so does max_overflow=-1.
    return sys.maxsize if pool_size == 0 or max_overflow == -1 else pool_size + max_overflow
