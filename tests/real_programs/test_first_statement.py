"""A writer acquires the turn and SQLite's lock with its first statement, whatever that is."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from .doors import Door, is_locked
from .parameters import first

FIRST = [
    "PRAGMA user_version",
    "PRAGMA foreign_key_check",
    "PRAGMA table_info(account)",
    "EXPLAIN SELECT * FROM account",
    "SAVEPOINT begun",
    "BEGIN",
    "SELECT amount FROM account",
    "VALUES (1)",
    "CREATE TEMP TABLE scratch (i)",
    "PRAGMA application_id",
    "PRAGMA schema_version",
    "PRAGMA table_xinfo('account')",
    "PRAGMA main.user_version",
    "PRAGMA integrity_check",
    "PRAGMA data_version",
    "PRAGMA page_count",
    "EXPLAIN QUERY PLAN SELECT * FROM account",
    "BEGIN DEFERRED",
    "SELECT user_version FROM pragma_user_version",
    "SELECT 1",
    "WITH one(i) AS (SELECT 1) SELECT i FROM one",
    "-- a remark\nSELECT 1",
]

# They have no effect, or fail, inside a transaction.
OUTSIDE = [
    "PRAGMA foreign_keys = OFF",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_checkpoint",
    "VACUUM",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_mode",
    "PRAGMA journal_mode = WAL",
    "PRAGMA temp_store = MEMORY",
]


@pytest.mark.parametrize("sql", first(9, FIRST))
async def test_the_lock_is_held_from_the_first_statement(writing: Door, sql: str) -> None:
    """Another program cannot begin to write after it, so earlier reads stay true."""
    app = await writing.open()
    await app.write("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)")
    async with app.enter() as connection:
        await connection.execute(text(sql))
        assert is_locked(app.path)
        await connection.rollback()
    assert not is_locked(app.path)


@pytest.mark.parametrize("sql", first(4, OUTSIDE))
async def test_what_must_be_outside_a_transaction_begins_none(writing: Door, sql: str) -> None:
    """They run as the first statement, as on stock, and leave no lock."""
    app = await writing.open()
    await app.write("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)")
    async with app.enter() as connection:
        await connection.execute(text(sql))
        assert not is_locked(app.path)


async def test_a_pragma_first_reads_inside_the_turn(writing: Door) -> None:
    """Tasks that start up read user_version, migrate and set it: a later one finds it done."""
    app = await writing.open()
    await app.write(
        "CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)",
        "INSERT INTO account VALUES (1, 100)",
    )

    async def migrate() -> None:
        async with app.enter() as connection:
            version = (await connection.execute(text("PRAGMA user_version"))).scalar_one()
            for _ in range(20):  # such as looking for its scripts
                await asyncio.sleep(0)
            if version < 1:
                await connection.execute(text("UPDATE account SET amount = amount * 100"))
                await connection.execute(text("PRAGMA user_version = 1"))
            await connection.commit()

    await asyncio.gather(*(asyncio.create_task(migrate()) for _ in range(3)))
    assert await app.value("SELECT amount FROM account") == 10_000
