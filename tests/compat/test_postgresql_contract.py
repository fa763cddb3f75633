"""What the package leans on inside the drivers of PostgreSQL: rows of ``docs/compat.md``."""

from __future__ import annotations

import socket
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
    """None before the first statement and after the end."""
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


async def test_an_asyncpg_error(app: App) -> None:
    """It is raised as the DB-API's error of the dialect."""
    only(app, "asyncpg")
    import asyncpg  # noqa: PLC0415

    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        found = await adapted(connection)
        with pytest.raises(engine.dialect.dbapi.Error):  # type: ignore[union-attr]
            found._handle_exception(asyncpg.PostgresSyntaxError("no"))
    await engine.dispose()


async def test_an_asyncpg_socket(app: App) -> None:
    """Its number is one of an open socket."""
    only(app, "asyncpg")
    engine = create_async_engine(app.url())
    async with engine.connect() as connection:
        transport = (await adapted(connection)).driver_connection._transport
        assert socket.socket.fileno(transport.get_extra_info("socket")._sock) >= 0
    await engine.dispose()


async def test_what_an_asyncpg_dialect_forgets(app: App) -> None:
    """It calls its method for DDL, and for that alone: one of the instance's is found."""
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
    """It knows its connection."""
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
        pass  # the dialect is set up, which rolls back
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
