"""One connection in changing roles: its former role has no effect on what it may do now."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked, outcome, turn_taken
from tests.helpers import amounts, create_items, driver

ROLES = ["auto", "reader", "writer"]

ADD = "UPDATE items SET amount = amount + 1 WHERE id = 1"
BY_FUNCTION = "SELECT adds()"
SWALLOWED = "SELECT tries_to_add()"


def on_connect(connection: sqlite3.Connection) -> None:
    def adds() -> str:
        connection.execute(ADD)
        return "added"

    def tries_to_add() -> str:
        try:
            return adds()
        except sqlite3.Error:
            return "not added"

    connection.create_function("adds", 0, adds)
    connection.create_function("tries_to_add", 0, tries_to_add)


@pytest.fixture
async def engine(make_engine: MakeEngine) -> AsyncEngine:
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0, on_connect=on_connect)
    await create_items(engine)
    return engine


async def try_to_write(connection: AsyncConnection, sql: str) -> bool:
    """Return whether the statement claims to have written."""
    found = await outcome(connection, sql)
    return found is None or found == [("added",)]


@pytest.mark.parametrize("sql", [ADD, BY_FUNCTION, SWALLOWED])
@pytest.mark.parametrize("roles", list(itertools.product(ROLES, repeat=3)))
async def test_in_every_order(
    engine: AsyncEngine, path: Path, roles: tuple[str, ...], sql: str
) -> None:
    """A reader changes nothing; the others write in a transaction, which can be rolled back."""
    expected = 0
    for role in roles:
        async with engine.execution_options(sqlite_role=role).connect() as connection:
            for commits in (False, True):
                assert await try_to_write(connection, sql) is (role != "reader"), role
                assert is_locked(path) is (role != "reader")
                await (connection.commit() if commits else connection.rollback())
                assert not is_locked(path)
        expected += role != "reader"
        assert await amounts(engine) == [expected, 0, 0]


@pytest.mark.parametrize("roles", list(itertools.permutations(ROLES)))
async def test_on_one_checkout(engine: AsyncEngine, roles: tuple[str, ...]) -> None:
    """The role may change between two transactions of one connection."""
    async with engine.connect() as connection:
        for role in roles:
            await connection.execution_options(sqlite_role=role)
            for sql in (SWALLOWED, ADD, BY_FUNCTION, "SELECT 1", ADD):
                found = await outcome(connection, sql)
                refused = isinstance(found, str) and (
                    "cannot change" in found or "raised exception" in found
                )
                assert refused is (role == "reader" and sql != "SELECT 1"), (role, sql, found)
            await connection.rollback()
    assert await amounts(engine) == [0, 0, 0]


@pytest.mark.parametrize("roles", list(itertools.product(ROLES, ["auto", "reader"])))
async def test_query_only_of_the_application(engine: AsyncEngine, roles: tuple[str, ...]) -> None:
    """It is the application's in every role: reported, kept, and no way for readers to write."""
    async with engine.connect() as connection:
        for role, value in ((roles[0], 1), (roles[1], 0), (roles[0], 0)):
            await connection.execution_options(sqlite_role=role)
            await connection.execute(text(f"PRAGMA query_only = {value}"))
            await connection.rollback()
            assert await outcome(connection, "PRAGMA query_only") == [(value,)]
            await connection.rollback()
            writes = await try_to_write(connection, ADD)
            assert writes is (role != "reader" and not value)
            await connection.rollback()
        await connection.execution_options(sqlite_role="auto")
        assert await outcome(connection, "PRAGMA query_only") == [(0,)]
        assert await try_to_write(connection, ADD)
        await connection.rollback()


@pytest.mark.parametrize("roles", list(itertools.permutations(["auto", "reader"])))
async def test_temp_tables_in_either_role(
    engine: AsyncEngine, path: Path, roles: tuple[str, ...]
) -> None:
    """They persist, and give no reason to write anything else or to acquire the turn."""
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (i)"))
        await connection.commit()
        async with turn_taken(path) as asked:
            for role in roles * 2:
                await connection.execution_options(sqlite_role=role)
                await connection.execute(text("INSERT INTO scratch VALUES (1)"))
                await connection.commit()
                if role == "reader":
                    assert "cannot change" in await outcome(connection, ADD)
                    await connection.rollback()
            assert asked() == 0
        assert await outcome(connection, "SELECT count(*) FROM scratch") == [(4,)]


async def test_what_is_known_of_a_statement_holds_in_its_role_only(
    engine: AsyncEngine, path: Path
) -> None:
    """A function whose write a reader was refused writes in a transaction as a writer."""
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_role="reader")
        for _ in range(3):
            assert "cannot change" in await outcome(connection, SWALLOWED)
            await connection.rollback()
        await connection.execution_options(sqlite_role="auto")
        assert await try_to_write(connection, SWALLOWED)
        assert (await driver(connection)).in_transaction
        await connection.rollback()
        assert await try_to_write(connection, SWALLOWED)
        await connection.rollback()
    assert await amounts(engine) == [0, 0, 0]
