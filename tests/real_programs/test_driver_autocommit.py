"""Transaction settings of applications for the driver, and SQLAlchemy's recipes for BEGIN."""

from __future__ import annotations

import sqlite3
import sys
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from .doors import SWAP_IN, Application, Door, Listen, is_locked

needs_autocommit = pytest.mark.skipif(
    not hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"), reason="sqlite3 has no autocommit attribute"
)


async def write_without_commit(app: Application) -> None:
    async with app.writer.connect() as connection:
        await connection.execute(text("CREATE TABLE t (x)"))
        await connection.execute(text("INSERT INTO t VALUES (1)"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"isolation_level": None},
        pytest.param({"autocommit": True}, marks=needs_autocommit),
        pytest.param({"isolation_level": None, "timeout": 5}, id="with-timeout"),
    ],
)
async def test_autocommit_of_the_driver(door: Door, arguments: dict[str, Any]) -> None:
    """Writes are kept without commit(), or the option is refused, naming the alternative."""
    try:
        app = await door.open(connect_args=arguments)
        await write_without_commit(app)
    except ArgumentError as error:
        assert not door.stock
        assert "AUTOCOMMIT" in str(error)  # noqa: PT017
    else:
        assert await app.value("SELECT count(*) FROM t") == 1


async def test_autocommit_of_the_engine(door: Door) -> None:
    """create_async_engine(isolation_level="AUTOCOMMIT") is SQLAlchemy's own way, and honoured."""
    app = await door.open(isolation_level="AUTOCOMMIT")
    await write_without_commit(app)
    assert await app.value("SELECT count(*) FROM t") == 1


@pytest.mark.parametrize("level", ["SERIALIZABLE", "READ UNCOMMITTED"])
async def test_isolation_levels_of_the_engine(door: Door, level: str) -> None:
    """Other levels are accepted, and transactions work normally."""
    app = await door.open(isolation_level=level)
    await check_transactions(app)


@pytest.mark.parametrize("level", ["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
async def test_isolation_levels_of_the_driver(door: Door, level: str) -> None:
    """sqlite3's other levels are kinds of BEGIN; commit() and rollback() work normally."""
    app = await door.open(connect_args={"isolation_level": level})
    await check_transactions(app)


@needs_autocommit
@pytest.mark.parametrize("door", [SWAP_IN], indirect=True)
async def test_transactions_by_the_standard(door: Door) -> None:
    """autocommit=False is PEP 249's way, which SQLAlchemy recommends from Python 3.12 on."""
    app = await door.open(connect_args={"autocommit": False})
    await check_transactions(app)


async def check_transactions(app: Application) -> None:
    await app.write("CREATE TABLE t (x UNIQUE)")
    async with app.writer.connect() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))
        await connection.rollback()
        await connection.execute(text("INSERT INTO t VALUES (2)"))
        await connection.commit()
    assert await app.rows("SELECT x FROM t") == [(2,)]
    async with app.transaction() as session:
        await session.execute(text("SELECT x FROM t"))
        await session.execute(text("INSERT INTO t VALUES (3)"))
    async with app.session() as session:
        assert (await session.scalars(text("SELECT x FROM t ORDER BY x"))).all() == [2, 3]


# -- the recipes of SQLAlchemy's page on SQLite ----------------------------------------------------


def recipe(begin: str) -> Listen:
    """Disable the driver's BEGIN, and send one in SQLAlchemy's event instead."""

    def listen(engine: AsyncEngine) -> None:
        @event.listens_for(engine.sync_engine, "connect")
        def connect(dbapi_connection: Any, _record: Any) -> None:
            dbapi_connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def do_begin(connection: Any) -> None:
            connection.exec_driver_sql(begin)

    return listen


async def check_recipe(app: Application) -> None:
    await check_transactions(app)
    async with app.writer.begin() as connection:
        await connection.execute(text("CREATE TABLE gone (x)"))
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM sqlite_master WHERE name = 'gone'") == 0
    async with app.transaction() as session:
        await session.execute(text("INSERT INTO t VALUES (10)"))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await session.execute(text("INSERT INTO t VALUES (11), (2)"))
    assert await app.value("SELECT count(*) FROM t WHERE x >= 10") == 1
    async with app.writer.connect() as connection:  # nothing is left open
        await connection.execute(text("SELECT 1"))
    assert not is_locked(app.path)


async def test_the_recipe_for_savepoints(door: Door) -> None:
    """BEGIN is sent in an event, on all engines."""
    await check_recipe(await door.open(listen=recipe("BEGIN")))


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_the_recipe_for_writers(door: Door, begin: str) -> None:
    """BEGIN IMMEDIATE is sent in an event, on the engine that writes."""
    await check_recipe(await door.open(listen_to_writer=recipe(begin)))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no autocommit attribute")
async def test_the_recipe_by_attribute(door: Door) -> None:
    """The same applies if a listener sets autocommit on the driver's connection itself."""

    def listen(engine: AsyncEngine) -> None:
        @event.listens_for(engine.sync_engine, "connect")
        def connect(dbapi_connection: Any, _record: Any) -> None:
            driver = dbapi_connection.driver_connection
            if hasattr(driver._conn, "autocommit"):

                async def set_it(driver: Any) -> None:
                    await driver._execute(setattr, driver._conn, "autocommit", False)

                dbapi_connection.run_async(set_it)

    app = await door.open(listen=listen)
    await app.write("CREATE TABLE t (x)")
    async with app.transaction() as session:
        await session.execute(text("INSERT INTO t VALUES (1)"))
    assert await app.value("SELECT count(*) FROM t") == 1
