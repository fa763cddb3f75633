"""``connect_args``: options of the application are honoured, or a message says they are not."""

from __future__ import annotations

import logging
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ConfigurationError, ReaderPool, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.other_drivers import creator_of
from tests.helpers import UPDATE_FIRST, amounts, create_items, driver, turn_of

AUTOCOMMIT: list[dict[str, Any]] = [{"isolation_level": None}]
if sys.version_info >= (3, 12):
    AUTOCOMMIT.append({"autocommit": True})


async def kept(engine: AsyncEngine) -> int:
    """Return how many of the rows written without a COMMIT another connection sees."""
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
    return (await amounts(engine))[0]


# -- autocommit of the driver ---------------------------------------------------------------------


@pytest.mark.parametrize("connect_args", AUTOCOMMIT)
@pytest.mark.parametrize("pool", [None, SQLitePool, WriterPool])
async def test_autocommit_of_the_driver(
    pool: type | None, connect_args: dict[str, Any], path: Path, make_engine: MakeEngine
) -> None:
    """Each statement is committed without a COMMIT, as on a stock engine."""
    await create_items(make_engine(SQLitePool))
    engine = make_engine(pool, connect_args=connect_args)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        assert (await amounts(make_engine()))[0] == 1
        assert turn_of(path).holder is None or pool is WriterPool
        await connection.rollback()
    assert await kept(engine) == 2


async def test_autocommit_of_a_creator_s_connection(path: Path, make_engine: MakeEngine) -> None:
    """The level a connection was opened with applies, whatever has opened it."""
    await create_items(make_engine(SQLitePool))
    for level, expected in ((None, 1), ("", 1), ("IMMEDIATE", 1)):
        creator = creator_of(partial(sqlite3.connect, path, isolation_level=level))
        engine = make_engine(SQLitePool, url="sqlite+aiosqlite://", async_creator=creator)
        assert await kept(engine) == expected
        await engine.dispose()


async def test_autocommit_of_a_listener(path: Path, make_engine: MakeEngine) -> None:
    """A ``connect`` listener that sets the level and sends BEGIN controls the transactions."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    await engine.dispose()

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            await connection.rollback()
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
    assert await amounts(engine) == [2, 0, 0]


async def test_every_checkout_begins_with_it(make_engine: MakeEngine) -> None:
    """Every checkout begins with the level, even after one that requested another for itself."""
    engine = make_engine(SQLitePool, connect_args={"isolation_level": None})
    await create_items(engine)
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="SERIALIZABLE")
        await connection.execute(UPDATE_FIRST)
        await connection.rollback()
    assert await amounts(engine) == [0, 0, 0]
    assert await kept(engine) == 1


async def test_options_of_sqlalchemy_go_before(make_engine: MakeEngine) -> None:
    """SQLAlchemy's own isolation-level option takes precedence."""
    options = {"isolation_level": "SERIALIZABLE", "connect_args": {"isolation_level": None}}
    engine = make_engine(SQLitePool, **options)
    await create_items(engine)
    assert await kept(engine) == 0


async def test_a_warm_connection_has_it_still(make_engine: MakeEngine) -> None:
    """A connection that SQLAlchemy discarded but that was kept begins with the same level."""
    engine = make_engine(SQLitePool, connect_args={"isolation_level": None})
    await create_items(engine)
    async with engine.connect() as connection:
        (await driver(connection)).executor.transaction.cancelled = True
        await connection.invalidate()
    assert await kept(engine) == 1


# -- levels that make no difference, and invalid levels ------------------------------------------


@pytest.mark.parametrize("level", ["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE", "immediate"])
@pytest.mark.parametrize("pool", [SQLitePool, WriterPool])
async def test_levels_of_sqlite3(pool: type, level: str, make_engine: MakeEngine) -> None:
    """The package decides how transactions begin; as on stock, there is one without AUTOCOMMIT."""
    engine = make_engine(pool, connect_args={"isolation_level": level})
    await create_items(engine)
    assert await kept(engine) == 0


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE", "nothing", 7])
async def test_what_is_no_level_of_sqlite3(level: object, make_engine: MakeEngine) -> None:
    """An invalid level is refused, naming the intended option, and nothing stays checked out."""
    engine = make_engine(SQLitePool, connect_args={"isolation_level": level})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"isolation_level= in create_async_engine"):
            await engine.connect()
    assert engine.pool.waiting == 0  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="has no autocommit")
@pytest.mark.parametrize("autocommit", [False, -1])
async def test_transactions_of_python_312(autocommit: int, make_engine: MakeEngine) -> None:
    """Transactions that ``sqlite3`` would keep open permanently are begun when they are needed."""
    engine = make_engine(SQLitePool, connect_args={"autocommit": autocommit})
    await create_items(engine)
    async with engine.connect() as connection:
        assert not (await driver(connection)).in_transaction
    assert await kept(engine) == 0


# -- the others -----------------------------------------------------------------------------------


async def test_a_timeout_that_is_not_used(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once per engine, with the options to use instead, unless the values agree."""
    with caplog.at_level(logging.WARNING, logger="sa_sqlite_pool"):
        engine = make_engine(SQLitePool, connect_args={"timeout": 5})
        await create_items(engine)
        await engine.dispose()
        assert await amounts(engine) == [0, 0, 0]
    (record,) = caplog.records
    assert '"timeout": 5' in record.getMessage()
    assert "write_timeout=30" in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="sa_sqlite_pool"):
        for options in ({"connect_args": {"timeout": 7}, "write_timeout": 7.0}, {}):
            await amounts(make_engine(SQLitePool, **options))
    assert caplog.records == []


class OwnConnection(sqlite3.Connection):
    """A connection class of the application."""

    own = True


async def test_what_is_passed_on(make_engine: MakeEngine) -> None:
    """A connection class, converters, a cache size and ``check_same_thread`` are passed on."""
    await create_items(make_engine(SQLitePool))
    sqlite3.register_converter("amount", lambda value: int(value) + 100)
    try:
        for pool in (SQLitePool, WriterPool, ReaderPool):
            engine = make_engine(
                pool,
                connect_args={
                    "factory": OwnConnection,
                    "detect_types": sqlite3.PARSE_COLNAMES,
                    "cached_statements": 7,
                    "check_same_thread": True,
                },
            )
            async with engine.connect() as connection:
                found = await connection.exec_driver_sql(
                    'SELECT id AS "id [amount]" FROM items LIMIT 1'
                )
                assert found.scalar_one() == 101
                raw = (await driver(connection)).worker.connection
                assert isinstance(raw, OwnConnection)
    finally:
        sqlite3.converters.pop("AMOUNT", None)


async def test_options_in_the_url(path: Path, make_engine: MakeEngine) -> None:
    """Options that SQLAlchemy takes from the query string are treated in the same way."""
    url = f"sqlite+aiosqlite:///{path}?isolation_level=IMMEDIATE&timeout=30&cached_statements=9"
    engine = make_engine(SQLitePool, url=url)
    await create_items(engine)
    assert await kept(engine) == 0


async def test_a_plain_engine_is_not_touched(make_engine: MakeEngine) -> None:
    """A plain engine is unaffected, because each engine has its own dialect."""
    make_engine(SQLitePool)
    async with make_engine().connect() as connection:
        assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar_one() == 5000
