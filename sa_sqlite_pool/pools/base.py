"""What the pools share: a fair line for connections, warm ones first, and errors with names."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine.characteristics import ConnectionCharacteristic
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.queue import Empty, QueueCommon

from ..driver.adapter import SQLiteConnection
from ..driver.opening import Opening
from ..driver.rules import Rules
from ..errors import ConfigurationError, PoolTimeout
from ..settings import (
    DEFAULT_PRAGMAS,
    DEFAULT_TIMEOUT,
    ConnectionSettings,
    OnConnect,
    PragmaValue,
    Role,
    check_timeout,
    lay_over,
)
from ..turn.fair_semaphore import FairSemaphore, Permit
from ..turn.write_turn import WriteTurn, write_turn


class IdleConnections(QueueCommon[ConnectionPoolEntry]):
    """The connections at rest; the one used last is lent first, since its caches are warmest.

    Nobody waits here: who may come is decided before, by the pool's line. And nothing is ever
    full: ``QueuePool`` closes what overflows ``pool_size``, and would open it again a moment
    later; here connections stay open, and ``pool_size + max_overflow`` is their number at most.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = True) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._records: deque[ConnectionPoolEntry] = deque()

    def empty(self) -> bool:
        return not self._records

    def full(self) -> bool:
        return False

    def qsize(self) -> int:
        return len(self._records)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        self._records.append(item)

    def put(
        self, item: ConnectionPoolEntry, block: bool = True, timeout: float | None = None
    ) -> None:
        self.put_nowait(item)

    def get_nowait(self) -> ConnectionPoolEntry:
        if not self._records:
            raise Empty
        return self._records.pop() if self.use_lifo else self._records.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        return self.get_nowait()


class RoleCharacteristic(ConnectionCharacteristic):
    """The ``sqlite_role`` execution option, as ``postgresql_readonly`` is one of PostgreSQL's."""

    transactional = True

    def reset_characteristic(self, dialect: Any, dbapi_conn: Any) -> None:
        dbapi_conn.reset_role()

    def set_characteristic(self, dialect: Any, dbapi_conn: Any, value: Any) -> None:
        dbapi_conn.ask_for_role(value)

    def get_characteristic(self, dialect: Any, dbapi_conn: Any) -> Any:
        return dbapi_conn.role.value


class FairPool(AsyncAdaptedQueuePool):
    """Base of this package's pools: a permit first, in order of arrival, then a connection.

    ``QueuePool`` lets its callers wait in ``asyncio.Queue.get``, where a newcomer may take what a
    waiter was woken for, and where a failed connect wakes nobody. Here a task that holds a permit
    always finds a connection at rest or room to open one.

    The base waits in a line of its own; :class:`WriterPool` waits in the write turn's.

    :param pragmas: laid over the defaults; checked at once
    :param write_timeout: seconds to wait for the right to write, and for SQLite's lock
    :param read_timeout: seconds to wait for a reader, and for SQLite's lock
    :param on_connect: called with each new ``sqlite3.Connection`` in its own thread
    """

    role: ClassVar[Role]
    default_pragmas: ClassVar[Mapping[str, PragmaValue]] = DEFAULT_PRAGMAS
    _queue_class = IdleConnections

    def __init__(
        self,
        creator: Callable[..., Any],
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = None,
        use_lifo: bool = True,
        pragmas: Mapping[str, PragmaValue] | None = None,
        write_timeout: float | None = None,
        read_timeout: float | None = None,
        on_connect: OnConnect | None = None,
        _opening: Opening | None = None,
        **kw: Any,
    ) -> None:
        if _opening is None:
            settings = ConnectionSettings(
                lay_over(self.default_pragmas, pragmas),
                DEFAULT_TIMEOUT if write_timeout is None else write_timeout,
                DEFAULT_TIMEOUT if read_timeout is None else read_timeout,
                on_connect,
            )
            _opening = Opening(self.role, settings, creator)
            _prepare_dialect(kw.get("dialect"), _opening)
        self._opening = _opening
        self._stock_creator = creator
        self._permits: dict[ConnectionPoolEntry, Permit] = {}
        self._line = FairSemaphore(_capacity(pool_size, max_overflow))
        waiting = self._default_timeout(_opening.settings) if timeout is None else timeout
        super().__init__(
            self._open,
            pool_size=pool_size,
            max_overflow=max_overflow,
            timeout=check_timeout("pool_timeout", waiting),
            use_lifo=use_lifo,
            **kw,
        )

    # -- for subclasses -------------------------------------------------------------------------

    timeout_error: ClassVar[type[PoolTimeout]] = PoolTimeout

    def _default_timeout(self, settings: ConnectionSettings) -> float:
        """How long a checkout waits where ``pool_timeout`` is not given."""
        return settings.read_timeout

    async def _acquire(self) -> Permit:
        """Wait for the right to a connection; raise an error that names who holds them."""
        permit = await self._line.acquire(self._timeout)
        if permit is None:
            raise self.timeout_error(
                f"waited {self._timeout:.2f} s for one of the {self._line.capacity} connections of "
                f"{self._opening.location.label}; they are held for "
                f"{self._line.describe_holders()}, {self._line.waiting} more in line; return "
                "connections sooner, or raise pool_size or pool_timeout"
            )
        return permit

    def _release(self, permit: Permit) -> None:
        """Give the right to the next in line."""
        self._line.release(permit)

    def _turn(self) -> WriteTurn | None:
        """The turn that connections take at their first write."""
        return None

    def _rules(self) -> Rules:
        settings = self._opening.settings
        return Rules(
            role=self.role,
            label=self._opening.location.label,
            turn=self._turn(),
            write_timeout=settings.write_timeout,
            read_timeout=settings.read_timeout,
        )

    def _turn_of_file(self) -> WriteTurn:
        location = self._opening.location
        return write_turn(location.identity, location.label)

    @property
    def waiting(self) -> int:
        """How many tasks stand in line for a connection."""
        return self._line.waiting

    # -- SQLAlchemy's seams ---------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        proxied = super().connect()
        connection = proxied.dbapi_connection
        if isinstance(connection, SQLiteConnection):
            connection.loan = self._permits.get(proxied._connection_record)
        return proxied

    def _do_get(self) -> ConnectionPoolEntry:
        permit = await_only(self._acquire())
        try:
            record = self._idle_or_new()
        except BaseException:
            self._release(permit)
            raise
        self._permits[record] = permit
        return record

    def _idle_or_new(self) -> ConnectionPoolEntry:
        try:
            return self._pool.get_nowait()
        except Empty:
            pass
        self._inc_overflow()
        try:
            return self._create_connection()
        except BaseException:
            self._dec_overflow()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        permit = self._permits.pop(record, None)
        try:
            if isinstance(record.dbapi_connection, SQLiteConnection):
                record.dbapi_connection.checked_in()
        except BaseException as error:  # a cancellation too: nobody knows how it stands
            record.invalidate(error)
            raise
        finally:
            super()._do_return_conn(record)
            if permit is not None:
                self._release(permit)

    def dispose(self) -> None:
        super().dispose()
        self._opening.lane.stop()

    def recreate(self) -> FairPool:
        self.logger.info("Pool recreating")
        return self.__class__(
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
            _opening=self._opening,
        )

    def _open(self, connection_record: ConnectionPoolEntry | None = None) -> Any:
        stock = (
            self._stock_creator(connection_record)
            if self._opening.by_dialect
            else self._stock_creator()
        )
        return await_only(self._opening.finish(stock, stock.dbapi, self._rules()))


def _capacity(pool_size: int, max_overflow: int) -> int:
    # QueuePool's meaning: no size is no limit, an overflow of -1 is none either
    return sys.maxsize if pool_size == 0 or max_overflow == -1 else pool_size + max_overflow


def _prepare_dialect(dialect: Any, opening: Opening) -> None:
    if getattr(dialect, "driver", None) != "aiosqlite":
        raise ConfigurationError(
            "this pool works with sqlite+aiosqlite URLs and create_async_engine() alone, not with "
            f"{getattr(dialect, 'name', None)}+{getattr(dialect, 'driver', None)}; "
            "leave poolclass out for other databases"
        )
    event.listen(dialect, "do_connect", opening.on_do_connect)
    dialect.connection_characteristics = dialect.connection_characteristics.union(
        {"sqlite_role": RoleCharacteristic()}
    )
