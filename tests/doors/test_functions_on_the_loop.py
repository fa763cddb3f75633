"""Statements that ran on the event loop and then turn out to call functions of the application."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import text

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked
from tests.helpers import create_items, driver, turn_of


async def test_one_that_takes_the_place_of_sqlites(make_engine: MakeEngine, path: Path) -> None:
    """A statement that calls the new function runs in the thread, in the turn while locked."""
    engine = make_engine(SQLitePool, pool_size=1)
    await create_items(engine)
    insert = text("INSERT INTO items (amount) VALUES (abs(5))")
    async with engine.connect() as connection:
        for _ in range(20):
            await connection.execute(insert)
            await connection.commit()
        beneath = await driver(connection)
        await connection.run_sync(lambda _: beneath.create_function("abs", 1, lambda _: 7))
        for _ in range(2):
            await connection.execute(insert)
            assert is_locked(path)
            assert turn_of(path).holder is not None
            await connection.commit()
            assert turn_of(path).holder is None
        rows = await connection.execute(text("SELECT amount FROM items ORDER BY id DESC LIMIT 3"))
        assert list(rows.scalars()) == [7, 7, 5]


async def test_one_that_has_been_refused_at_first(make_engine: MakeEngine, path: Path) -> None:
    """The statement is known to call a function, even if SQLite compiles it only once."""

    def on_connect(raw: sqlite3.Connection) -> None:
        add = "UPDATE items SET amount = amount + 1 WHERE id = 1"
        raw.create_function("adds", 0, lambda: raw.execute(add).rowcount)

    engine = make_engine(SQLitePool, on_connect=on_connect, pool_size=1)
    await create_items(engine)
    async with engine.connect() as connection:
        for _ in range(20):
            assert await connection.scalar(text("SELECT adds()")) == 1
            assert turn_of(path).holder is not None
            await connection.rollback()
        facts = (await driver(connection))._executor.facts.of("SELECT adds()")
        assert facts.calls_functions
        assert facts.runs.inline == 0
