"""What the package relies on inside SQLAlchemy's dialect: rows of ``docs/compat.md``."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.dialects.sqlite import aiosqlite as dialect
from sqlalchemy.engine.characteristics import ConnectionCharacteristic
from sqlalchemy.util.concurrency import greenlet_spawn

from tests.conftest import MakeEngine


async def test_adapted_classes() -> None:
    """The dialect's connection and cursors have no dictionary, and can be subclassed.

    ``driver/adapter.py`` and ``driver/cursors.py`` add slots of their own and replace every
    public name; ``tests/driver/test_adapted_classes.py`` compares the names.
    """
    for theirs in (
        dialect.AsyncAdapt_aiosqlite_connection,
        dialect.AsyncAdapt_aiosqlite_cursor,
        dialect.AsyncAdapt_aiosqlite_ss_cursor,
    ):
        own: Any = type("Own", (theirs,), {"__slots__": ("value",), "__init__": lambda _: None})
        one = own()
        one.value = 1
        assert not hasattr(one, "__dict__")


def test_the_raw_connection_of_an_adapted_one() -> None:
    """``driver_connection`` and ``run_async()`` use ``_connection``, which a subclass may replace.

    ``driver/adapter.py``: once the raw connection is lent, its transactions are the driver's.
    """
    asked: list[str] = []

    class Own(dialect.AsyncAdapt_aiosqlite_connection):
        __slots__ = ()

        def __init__(self) -> None:
            """Do without the other connection."""

        @property
        def _connection(self) -> Any:  # type: ignore[override]
            asked.append("connection")
            return "raw"

    async def use(raw: Any) -> str:
        return f"used {raw}"

    one = Own()
    assert one.driver_connection == "raw"
    assert asyncio.run(greenlet_spawn(one.run_async, use)) == "used raw"
    assert asked == ["connection", "connection"]


async def test_rows_are_read_from_the_cursor_when_it_is_closed(make_engine: MakeEngine) -> None:
    """An asynchronous result awaits its cursor's ``_async_soft_close()`` once it has all rows.

    ``driver/cursors.py``: the dialect's does nothing, because there is nothing to close.
    """
    for theirs in (dialect.AsyncAdapt_aiosqlite_cursor, dialect.AsyncAdapt_aiosqlite_ss_cursor):
        assert inspect.iscoroutinefunction(theirs._async_soft_close)
        assert list(inspect.signature(theirs._async_soft_close).parameters) == ["self"]


async def test_how_the_dialect_connects(make_engine: MakeEngine, path: Path) -> None:
    """``do_connect`` listeners may add ``async_creator_fn``, which gets the final arguments.

    ``opening/connector.py``: it opens every connection. Listeners are called in order, the last one
    decides, and ``len(dispatch.do_connect)`` is their number.
    """
    asked: list[Any] = []

    def create(*args: Any, **kw: Any) -> Any:
        asked.append((args, kw))
        return aiosqlite.connect(*args, **kw)

    engine = make_engine(connect_args={"cached_statements": 7})
    before = len(engine.dialect.dispatch.do_connect)

    @event.listens_for(engine.sync_engine, "do_connect")
    def first(_dialect: Any, record: Any, args: list[Any], parameters: dict[str, Any]) -> None:
        assert hasattr(record, "info")
        args[0] = str(path)
        parameters.setdefault("async_creator_fn", create)

    @event.listens_for(engine.sync_engine, "do_connect")
    def second(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        parameters["cached_statements"] = 8

    assert len(engine.dialect.dispatch.do_connect) == before + 2
    async with engine.connect():
        ((args, kw),) = asked
    assert args == (str(path),)
    assert kw["cached_statements"] == 8
    assert "async_creator_fn" not in kw


async def test_the_engines_creator(make_engine: MakeEngine) -> None:
    """The creator that an engine gives its pool takes one argument, ``connection_record``.

    ``opening/creator.py`` thus distinguishes connections that the dialect or the application opens.
    """
    pool: Any = make_engine().pool
    assert list(inspect.signature(pool._creator).parameters) == ["connection_record"]


def test_what_the_dialect_takes_for_a_disconnect() -> None:
    """An OperationalError that begins with "no active connection" means a lost connection.

    ``execution/connection_thread.py`` raises it for a connection that was given up; SQLAlchemy
    then opens another one.
    """
    one = dialect.dialect(dbapi=dialect.dialect.import_dbapi())
    error: Any = sqlite3.OperationalError("no active connection: it was closed")
    assert one.is_disconnect(error, None, None)


async def test_characteristics_are_set_and_reset(make_engine: MakeEngine) -> None:
    """Options of ``connection_characteristics`` are set on the driver's connection.

    ``pools/dialect.py``: ``sqlite_role``. The reset is stored in ``finalize_callback`` of the
    proxy's ``_connection_record``, which ``closures/borrowed.py`` therefore has.
    """
    calls: list[Any] = []

    class Own(ConnectionCharacteristic):
        transactional = True

        def set_characteristic(self, dialect: Any, dbapi_conn: Any, value: Any) -> None:
            calls.append(value)

        def reset_characteristic(self, dialect: Any, dbapi_conn: Any) -> None:
            calls.append("reset")

        def get_characteristic(self, dialect: Any, dbapi_conn: Any) -> Any:
            return calls[-1]

    engine = make_engine()
    stock: Any = engine.dialect
    stock.connection_characteristics = stock.connection_characteristics.union({"own": Own()})
    async with engine.connect() as connection:
        record: Any = (await connection.get_raw_connection())._connection_record
        before = len(record.finalize_callback)
        await connection.execution_options(own="value")
        assert len(record.finalize_callback) == before + 1
    assert calls == ["value", "reset"]
