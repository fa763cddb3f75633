"""What the package relies on inside SQLAlchemy's pools: rows of ``docs/compat.md``.

``pools/base.py`` is a ``QueuePool`` that lends connections by other rules.
"""

from __future__ import annotations

import gc
import logging
import threading
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util.queue import Empty, Queue, QueueCommon

from sa_sqlite_pool.compat.pool_records import is_current
from sa_sqlite_pool.pools.resting import IdleConnections
from tests.conftest import MakeEngine


class Driver:
    """A connection without a database."""

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class Dialect:
    """The parts of a dialect that a pool uses."""

    is_async = False
    has_terminate = False

    def do_rollback(self, connection: Any) -> None: ...

    def do_commit(self, connection: Any) -> None: ...

    def do_close(self, connection: Any) -> None: ...

    def get_driver_connection(self, connection: Any) -> Any:
        return connection


class Noted(QueuePool):
    """A pool that records its calls."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.calls: list[str] = []
        super().__init__(*args, **kw)

    def _do_get(self) -> Any:
        self.calls.append("get")
        return super()._do_get()

    def _do_return_conn(self, record: Any) -> None:
        self.calls.append("return")
        super()._do_return_conn(record)


def make_pool(kind: type[QueuePool] = QueuePool, **kw: Any) -> Any:
    kw.setdefault("dialect", Dialect())
    return kind(Driver, **kw)  # type: ignore[arg-type]


def test_a_checkout_is_one_get_and_one_return() -> None:
    """``connect()`` calls ``_do_get()`` once, and a return calls ``_do_return_conn(record)`` once.

    ``pools/base.py``: the permit is acquired and released there. A pool that called other methods
    would lend connections without a permit.
    """
    pool = make_pool(Noted)
    proxied = pool.connect()
    assert pool.calls == ["get"]
    proxied.close()
    assert pool.calls == ["get", "return"]
    proxied = pool.connect()
    proxied.invalidate()
    assert pool.calls == ["get", "return"] * 2


def test_how_a_record_closes_its_connection() -> None:
    """It calls ``_close_connection(connection, terminate=…)`` of its pool.

    ``pools/returns.py`` does not log a cancellation there. A pool that called other methods would
    log it as an error.
    """
    closed: list[bool] = []

    class Own(QueuePool):
        def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
            closed.append(terminate)
            super()._close_connection(connection, terminate=terminate)

    pool = make_pool(Own)
    pool.connect().close()
    pool.dispose()
    assert closed == [False]


def test_a_record_comes_back_without_its_connection() -> None:
    """``detach()`` returns the record, too, with ``dbapi_connection`` set to None.

    ``pools/checkouts.py`` thus learns whether record and connection are returned together.
    """
    seen: list[Any] = []

    class Own(QueuePool):
        def _do_return_conn(self, record: Any) -> None:
            seen.append(record.dbapi_connection)
            super()._do_return_conn(record)

    proxied = make_pool(Own).connect()
    driver = proxied.dbapi_connection
    proxied.detach()
    assert seen == [None]
    assert proxied.dbapi_connection is driver


def test_the_record_of_a_proxy() -> None:
    """``connect()`` returns a proxy whose ``_connection_record`` is the result of ``_do_get()``.

    ``pools/checkouts.py`` finds the checkout by it; ``closures/borrowed.py`` stores options there.
    ``_pool`` is the pool that lent it, even after the engine has another one.
    """
    given: list[Any] = []

    class Own(QueuePool):
        def _do_get(self) -> Any:
            given.append(super()._do_get())
            return given[0]

    pool = make_pool(Own)
    proxied = pool.connect()
    assert isinstance(proxied, _ConnectionFairy)
    assert proxied._connection_record is given[0]
    assert proxied._pool is pool
    proxied.close()


def test_a_record_of_our_own() -> None:
    """``_ConnectionRecord(pool, connect=False)`` is at rest without a connection, and can be lent.

    ``compat/pool_records.py`` lends another in place of one that SQLAlchemy still uses.
    """
    pool = make_pool()
    record: Any = _ConnectionRecord(pool, connect=False)
    assert record.dbapi_connection is None
    assert record.fairy_ref is None
    assert not record.in_use
    assert isinstance(record.get_connection(), Driver)


def test_when_a_record_returns() -> None:
    """It returns after the ``checkin`` listeners: one that raises prevents the return to the pool.

    ``compat/pool_records.py`` returns it in that case.
    """
    pool = make_pool()
    returned: list[object] = []
    event.listen(pool, "checkin", lambda *_: returned.append("heard"))
    return_conn = pool._return_conn

    def returns(record: Any) -> None:
        returned.append(record)
        return_conn(record)

    pool._return_conn = returns
    proxied: Any = pool.connect()
    record = proxied._connection_record
    proxied.close()
    assert returned == ["heard", record]


def test_where_a_record_keeps_what_lasts() -> None:
    """``record_info`` is memoized in the record's dictionary at its first use.

    ``compat/pool_records.py`` passes it to the new record, as SQLAlchemy promises for it.
    """
    record: Any = _ConnectionRecord(make_pool(), connect=False)
    assert "record_info" not in record.__dict__
    record.record_info["key"] = "value"
    assert record.__dict__["record_info"] == {"key": "value"}
    other: Any = _ConnectionRecord(make_pool(), connect=False)
    other.__dict__["record_info"] = record.__dict__["record_info"]
    assert other.record_info == {"key": "value"}


def test_a_lent_record_refers_to_its_proxy_weakly() -> None:
    """``fairy_ref`` is set while a record is lent; None tells the finalizer that it is not lent.

    ``pools/checkouts.py`` clears it in a child: no connection is returned to the parent's pool.
    """
    pool = make_pool(Noted)
    proxied: Any = pool.connect()
    record = proxied._connection_record
    assert record.fairy_ref() is proxied
    record.fairy_ref = None
    del proxied
    gc.collect()
    assert pool.calls == ["get"]


def test_a_record_without_a_proxy_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the proxy cannot be created, its record has no ``fairy_ref``, and nothing returns it.

    ``compat/pool_records.py`` returns it.
    """
    pool = make_pool(Noted)
    given: list[Any] = []

    def fail(*args: Any) -> None:
        given.append(args[3])
        raise MemoryError

    monkeypatch.setattr(_ConnectionFairy, "__init__", fail)
    with pytest.raises(MemoryError):
        pool.connect()
    gc.collect()
    assert (pool.calls, given[0].fairy_ref) == (["get"], None)
    given[0].checkin(_fairy_was_created=False)
    assert pool.calls == ["get", "return"]


def test_what_a_pool_keeps_at_rest() -> None:
    """``_pool`` is a ``_queue_class(maxsize, use_lifo=…)``, of which only these names are used.

    ``pools/resting.py`` is such a class, in which no task waits.
    """
    asked: set[str] = set()

    class Asked(IdleConnections):
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    class Own(QueuePool):
        _queue_class = Asked

    pool = make_pool(Own, pool_size=3, use_lifo=True)
    assert isinstance(pool._pool, QueueCommon)
    pool.connect().close()
    pool.status()
    pool.dispose()
    own = {"_records", "_empty", "take", "__class__", "__dict__"}
    assert asked - own <= {"put", "get", "put_nowait", "get_nowait", "qsize", "maxsize", "use_lifo"}
    assert pool._pool.maxsize == 3
    assert pool._pool.use_lifo is True


def test_an_empty_queue_says_so() -> None:
    """A queue without connections at rest raises ``sqlalchemy.util.queue.Empty``.

    ``pools/resting.py`` and ``pools/base.py``: every checkout would raise any other class.
    """
    with pytest.raises(Empty):
        Queue(3).get(False)
    assert make_pool().connect() is not None


def test_how_many_are_open_is_counted() -> None:
    """``_overflow`` begins at ``-pool_size`` and counts what ``_inc_overflow()`` admits.

    ``pools/base.py`` opens connections below it, and resets it in a child process. Its lock
    is ``_overflow_lock``.
    """
    pool = make_pool(pool_size=2, max_overflow=0)
    assert pool._overflow == -pool.size() == -2
    assert [pool._inc_overflow() for _ in range(3)] == [True, True, False]
    assert pool._dec_overflow() is True
    assert pool._overflow == -1
    assert isinstance(pool._overflow_lock, type(threading.Lock()))
    assert pool._max_overflow == 0


def test_a_new_record() -> None:
    """``_create_connection()`` returns a record whose connection the creator has opened.

    ``pools/base.py``: for checkouts that find nothing at rest. The creator gets the record.
    """
    records: list[Any] = []

    def create(connection_record: Any) -> Driver:
        records.append(connection_record)
        return Driver()

    pool: Any = QueuePool(create, dialect=Dialect())  # type: ignore[arg-type]
    record = pool._create_connection()
    assert records == [record]
    assert isinstance(record.dbapi_connection, Driver)


def test_a_pool_that_is_made_again() -> None:
    """The arguments of a pool are kept under these names, and accepted again by ``__init__``.

    ``pools/base.py``: ``recreate()``, after ``engine.dispose()``. ``_dispatch`` has its listeners.
    """
    pool = make_pool(
        recycle=7, pre_ping=True, reset_on_return="commit", logging_name="x", timeout=3, echo=False
    )
    seen: list[object] = []
    event.listen(pool, "connect", lambda *_: seen.append(1))
    again = make_pool(
        timeout=pool._timeout,
        recycle=pool._recycle,
        echo=pool.echo,
        logging_name=pool._orig_logging_name,
        reset_on_return=pool._reset_on_return,
        pre_ping=False,
        dialect=pool._dialect,
        _dispatch=pool.dispatch,
    )
    assert pool._pre_ping is True
    assert (again._recycle, again._timeout) == (7, 3)
    assert again._reset_on_return is pool._reset_on_return
    assert again.logging_name == "x"
    again.connect().close()
    assert seen == [1]


async def test_which_pool_an_asyncio_engine_takes(make_engine: MakeEngine) -> None:
    """A subclass of ``AsyncAdaptedQueuePool`` is accepted; its ``dialect.dbapi`` is the driver.

    ``pools/base.py``: its connections report the driver of ``_dialect.dbapi``.
    """

    class Own(AsyncAdaptedQueuePool):
        """A different class."""

    engine = make_engine(Own)
    pool: Any = engine.pool
    assert isinstance(pool, Own)
    dialect: Any = pool._dialect
    assert dialect.dbapi is engine.dialect.dbapi
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def test_the_logger_of_a_pool() -> None:
    """``_sqla_logger_namespace`` of the class, if set, is the name of its logger.

    ``pools/base.py``: the three pools log where ``echo_pool`` expects it.
    """

    class Own(QueuePool):
        _sqla_logger_namespace = "sqlalchemy.pool.impl.Own"

    pool = make_pool(Own)
    assert logging.getLogger("sqlalchemy.pool.impl.Own") is pool.logger


def test_when_a_connection_is_opened_anew() -> None:
    """A record compares its opening with two times, and ``pool_recycle`` is -1 if it is not set.

    ``compat/pool_records.py``: ``is_current()`` does the same without opening anything.
    """
    pool = Noted(Driver, dialect=Dialect())
    pool.connect().close()
    record: Any = pool._do_get()
    assert (pool._recycle, pool._pre_ping) == (-1, False)
    assert is_current(record, pool)
    first = record.get_connection()
    assert record.get_connection() is first
    pool._invalidate_time = record.starttime + 1
    assert not is_current(record, pool)
    assert record.get_connection() is not first
    pool._invalidate_time = 0.0
    assert is_current(record, pool)
    second = record.get_connection()
    record._soft_invalidate_time = record.starttime + 1
    assert not is_current(record, pool)
    assert record.get_connection() is not second
    for options in ({"recycle": 5}, {"pre_ping": True}):
        careful = Noted(Driver, dialect=Dialect(), **options)
        assert not is_current(careful._do_get(), careful)


async def test_a_broken_connection_tells_its_pool(make_engine: MakeEngine) -> None:
    """The pool is informed once, before the connection is discarded, with proxy and error."""
    engine = make_engine()
    pool: Any = engine.sync_engine.pool
    seen: list[Any] = []
    invalidate = pool._invalidate

    def note(proxy: Any, error: Any = None, _checkin: bool = True) -> None:
        seen.append((type(proxy), type(error), _checkin))
        invalidate(proxy, error, _checkin)

    pool._invalidate = note
    engine.dialect.is_disconnect = lambda *_: True  # type: ignore[method-assign]
    async with engine.connect() as connection:
        with pytest.raises(OperationalError):
            await connection.execute(text("SELECT no"))
    assert [kind for kind, _, _ in seen] == [_ConnectionFairy]
