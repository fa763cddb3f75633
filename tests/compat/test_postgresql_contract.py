"""What the package relies on inside the drivers of PostgreSQL: rows of ``docs/compat.md``."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.schema import CreateSchema

from tests.postgresql import App


def only(app: App, driver: str) -> None:
    if app.driver != driver:
        pytest.skip(f"of {driver}")


async def adapted(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).dbapi_connection


async def test_an_asyncpg_transaction(app: App) -> None:
    """There is none before the first statement, and none after the end."""
    only(app, "asyncpg")
    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        found = await adapted(connection)
        assert found._transaction is None
        await connection.execute(text("SELECT 1"))
        assert found._transaction is not None
        await connection.rollback()
        assert found._transaction is None
    await engine.dispose()


async def test_an_asyncpg_transaction_begins_when_asked(app: App) -> None:
    """The first statement then sends no BEGIN of its own; in AUTOCOMMIT, no statement does."""
    only(app, "asyncpg")
    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        found = await adapted(connection)
        driver = found.driver_connection
        await found._start_transaction()
        begun = found._transaction
        assert driver.is_in_transaction()
        await connection.execute(text("SELECT 1"))
        assert found._transaction is begun
        await connection.rollback()
        assert not driver.is_in_transaction()
        found.autocommit = True
        await found._start_transaction()
        assert not driver.is_in_transaction()
        found.autocommit = False
    await engine.dispose()


async def test_an_asyncpg_error(app: App) -> None:
    """It is raised as the dialect's DB-API error."""
    only(app, "asyncpg")
    import asyncpg  # noqa: PLC0415

    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        found = await adapted(connection)
        with pytest.raises(engine.dialect.dbapi.Error):  # type: ignore[union-attr]
            found._handle_exception(asyncpg.PostgresSyntaxError("no"))
    await engine.dispose()


async def test_the_tag_of_an_asyncpg_commit(app: App) -> None:
    """asyncpg's own transaction executes COMMIT like any statement, with the given class."""
    only(app, "asyncpg")
    from sa_sqlite_pool.servers.drivers.asyncpg_connection import CountedConnection  # noqa: PLC0415

    url = app.url().set(drivername="postgresql").render_as_string(hide_password=False)
    import asyncpg  # noqa: PLC0415

    driver: Any = await asyncpg.connect(url, connection_class=CountedConnection)
    async with driver.transaction():
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await driver.execute("no")
    assert driver.was_given_up
    async with driver.transaction():
        await driver.execute("SELECT 1")
    assert not driver.was_given_up
    await driver.close()


async def test_what_an_asyncpg_connection_counts(app: App) -> None:
    """It counts statements of each kind itself, and COPY through the given class."""
    only(app, "asyncpg")
    from sa_sqlite_pool.servers.drivers.asyncpg_connection import CountedConnection  # noqa: PLC0415

    url = app.url().set(drivername="postgresql").render_as_string(hide_password=False)
    import asyncpg  # noqa: PLC0415

    driver: Any = await asyncpg.connect(url, connection_class=CountedConnection)
    prepared = await driver.prepare("SELECT 1")
    counted: set[object] = {(0, driver._protocol.queries_count)}
    works: list[Callable[[], Any]] = [
        lambda: driver.execute("CREATE TABLE t (n int)"),
        lambda: driver.execute("INSERT INTO t VALUES ($1)", 1),
        lambda: driver.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)]),
        lambda: driver.fetch("SELECT n FROM t"),
        prepared.fetch,
        lambda: driver.copy_records_to_table("t", records=[(3,)]),
        lambda: driver.copy_to_table("t", source=io.BytesIO(b"4\n")),
        lambda: driver.copy_from_table("t", output=io.BytesIO()),
        lambda: driver.copy_from_query("SELECT 1", output=io.BytesIO()),
    ]
    for number, work in enumerate(works):
        await work()
        counted.add((driver.copies, driver._protocol.queries_count))
        assert len(counted) == number + 2
    await driver.close()


async def test_what_a_psycopg_connection_counts(app: App) -> None:
    """Each operation is counted, also those of a COPY and of the driver's own transaction."""
    only(app, "psycopg")
    from sa_sqlite_pool.servers.drivers.psycopg_connection import PromptConnection  # noqa: PLC0415

    url = app.url().set(drivername="postgresql").render_as_string(hide_password=False)
    driver = await PromptConnection.connect(url, autocommit=True)
    found = [driver.operations]

    async def copy() -> None:
        async with driver.cursor().copy("COPY t FROM STDIN") as copying:
            await copying.write_row((1,))

    async def transaction() -> None:
        async with driver.transaction():
            pass

    works = [lambda: driver.execute("CREATE TABLE t (n int)"), copy, transaction]
    for work in works:
        await work()
        found.append(driver.operations)
    assert found == sorted(set(found))
    await driver.close()


async def test_an_asyncpg_socket(app: App) -> None:
    """Its file descriptor is that of an open socket, and the loop is the connection's."""
    only(app, "asyncpg")
    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        driver = (await adapted(connection)).driver_connection
        assert driver._loop is asyncio.get_running_loop()
        transport = driver._transport
        assert socket.socket.fileno(transport.get_extra_info("socket")._sock) >= 0
    await engine.dispose()


async def test_what_an_asyncpg_dialect_forgets(app: App) -> None:
    """It calls its method only for DDL, and uses one that is set on the instance."""
    only(app, "asyncpg")
    engine = create_async_engine(app.url())
    dialect: Any = engine.dialect
    called: list[bool] = []
    dialect._invalidate_schema_cache = lambda: called.append(True)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 1"))
        assert called == []
        await connection.execute(CreateSchema("more"))
        assert called == [True]
    await engine.dispose()


async def test_a_psycopg_cursor(app: App) -> None:
    """It refers to its connection."""
    only(app, "psycopg")
    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        driver = (await adapted(connection)).driver_connection
        cursor = driver.cursor(name="one")
        assert cursor._conn is driver
        await cursor.close()
    await engine.dispose()


async def test_methods_of_a_dialect_may_be_replaced(app: App) -> None:
    """They are looked up in the engine's dialect at each use."""
    engine = create_async_engine(app.url())
    dialect: Any = engine.dialect
    calls: list[str] = []

    def noting(name: str) -> Any:
        method = getattr(dialect, name)

        def note(proxied: Any) -> None:
            calls.append(name)
            method(proxied)

        return note

    async with engine.connect():
        pass  # the dialect is initialized, which rolls back
    for name in ("do_begin", "do_commit", "do_rollback"):
        setattr(dialect, name, noting(name))
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 1"))
    assert calls[:2] == ["do_begin", "do_commit"]
    with pytest.raises(DBAPIError):
        async with engine.begin() as connection:
            await connection.execute(text("SELECT no"))
    assert calls.count("do_rollback") >= 1
    await engine.dispose()
