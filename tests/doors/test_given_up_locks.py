"""A connection that was given up no longer holds a lock, whatever still refers to it."""

from __future__ import annotations

import sqlite3

from sqlalchemy import text

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, driver


async def test_somebody_has_a_cursor_still(make_engine: MakeEngine) -> None:
    """SQLite keeps a closed connection and its transaction alive while it has a statement."""
    engine = make_engine(SQLitePool, write_timeout=2.0)
    await create_items(engine)
    cursors: list[sqlite3.Cursor] = []

    def read(connection: sqlite3.Connection) -> None:
        cursors.append(connection.execute("SELECT id FROM items"))

    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = await driver(connection)
        await raw.worker.run(read)
        raw.give_up("test", keep=False)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE items SET amount = 2 WHERE id = 1"))
    assert cursors
    assert (await amounts(engine))[0] == 2
