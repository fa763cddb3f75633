"""Plain engines through PgBouncer in transaction mode: the settings, and failures without them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.pgbouncer.bouncer import needs_pgbouncer
from tests.pgbouncer.conftest import UNIQUE_NAMES, Pooled

pytestmark = needs_pgbouncer


class WrongAnswerError(Exception):
    """A task has received the result of another task's statement."""


async def count_on(engine: AsyncEngine, rounds: int = 25, tasks: int = 8) -> None:
    """Run more clients than PgBouncer has connections, so statements move between connections."""

    async def count(task: int) -> None:
        statement = text(f"SELECT CAST(:number AS integer) * {tasks} + {task}")
        for number in range(rounds):
            async with engine.begin() as connection:
                found = await connection.scalar(statement, {"number": number})
                if found != number * tasks + task:
                    raise WrongAnswerError(found)

    failures = await asyncio.gather(*map(count, range(tasks)), return_exceptions=True)
    for failure in filter(None, failures):
        raise failure


async def count_through(pooled: Pooled, **options: Any) -> None:
    engine = create_async_engine(pooled.url(), pool_size=8, **options)
    try:
        await count_on(engine)
    finally:
        await engine.dispose()


async def test_with_the_settings(pooled: Pooled) -> None:
    """Transactions of any number of clients do not conflict through their prepared statements."""
    await count_through(pooled, **pooled.options)
    if pooled.app.driver == "asyncpg":
        await count_through(pooled, connect_args=UNIQUE_NAMES)


async def test_without_the_settings(pooled: Pooled) -> None:
    """A prepared statement belongs to one server connection; the next transaction has another one.

    That connection may have another client's statement of the same name. psycopg numbers names
    for each connection: it returns the result of the other statement.
    """
    engine, other, third = (create_async_engine(pooled.url(), pool_size=1) for _ in range(3))
    try:
        assert await add_often(engine, 1) == 1  # on the first server connection
        async with third.begin() as connection:  # takes the first one
            await connection.execute(text("SELECT 1"))
            assert await add_often(other, 100) == 100  # therefore on a second one
            if pooled.app.driver == "psycopg":
                assert await add_often(engine, 1, times=1) == 100
            else:
                with pytest.raises(DBAPIError, match="prepared statement"):
                    await add_often(engine, 1, times=1)
    finally:
        for one in (engine, other, third):
            await one.dispose()


async def test_followed(followed: Pooled) -> None:
    """No settings are needed if PgBouncer tracks prepared statements, even more than it keeps."""
    await count_through(followed)
    engine, other = (create_async_engine(followed.url(), pool_size=1) for _ in range(2))
    try:
        for number in range(150):  # psycopg keeps 100 of them, as does asyncpg
            for one in (engine, other):
                assert await add_often(one, number, times=6) == number
        for number in range(150):
            assert await add_often(engine, number, times=1) == number
    finally:
        await engine.dispose()
        await other.dispose()


async def add_often(engine: AsyncEngine, number: int, times: int = 10) -> int | None:
    """Add ``number`` to 0 in separate transactions, often enough for a prepared statement."""
    found = None
    for _ in range(times):
        async with engine.begin() as connection:
            statement = text(f"SELECT CAST(:zero AS integer) + {number}")
            found = await connection.scalar(statement, {"zero": 0})
    return found


async def test_autocommit(pooled: Pooled) -> None:
    """All messages of a statement use one connection, even without a transaction."""
    engine = create_async_engine(
        pooled.url(), pool_size=8, isolation_level="AUTOCOMMIT", **pooled.options
    )
    try:
        await count_on(engine)
    finally:
        await engine.dispose()


async def test_a_setting_of_the_session_is_for_others_too(pooled: Pooled) -> None:
    """SET remains in effect on the server's connection; SET LOCAL ends with its transaction."""
    engine = create_async_engine(pooled.url(), pool_size=1, **pooled.options)
    other = create_async_engine(pooled.url(), pool_size=1, **pooled.options)
    show = text("SELECT current_setting('lock_timeout')")
    try:
        for set_it, expected in (("SET LOCAL", "0"), ("SET", "1234ms")):
            async with engine.begin() as connection:
                await connection.execute(text(f"{set_it} lock_timeout = 1234"))
            async with other.connect() as connection:
                assert await connection.scalar(show) == expected
    finally:
        await engine.dispose()
        await other.dispose()


async def test_a_startup_parameter_is_refused(pooled: Pooled) -> None:
    """A setting passed in when a connection is opened causes an error that names it."""
    arguments: dict[str, Any] = (
        {"server_settings": {"statement_timeout": "1000"}}
        if pooled.app.driver == "asyncpg"
        else {"options": "-c statement_timeout=1000"}
    )
    engine = create_async_engine(pooled.url(), connect_args=arguments)
    # The driver's error: SQLAlchemy 2.0 does not translate what asyncpg raises while connecting.
    with pytest.raises(Exception, match="unsupported startup parameter"):
        async with engine.connect():
            pass
    await engine.dispose()
