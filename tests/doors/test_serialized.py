"""Serialized writes: on a swap-in connection, nothing is written without the turn."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.test_reading_doors import LONG, TRICKS, WRITE, no_colon, on_connect
from tests.doors.turns import outcome, turn_taken
from tests.helpers import create_items, driver, turn_of

SETUP = [
    "CREATE VIEW shown AS SELECT amount FROM items",
    "CREATE TRIGGER r INSTEAD OF INSERT ON shown BEGIN DELETE FROM items; END",
    "CREATE VIRTUAL TABLE search USING fts5(body)",
    "CREATE VIRTUAL TABLE old USING fts4(body)",
    "INSERT INTO old VALUES ('a word')",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
]

MORE = [
    ["INSERT INTO shown VALUES (1)"],
    ["WITH a AS (SELECT 1) INSERT INTO shown SELECT * FROM a"],
    ["WITH a(i) AS (VALUES (1)) DELETE FROM items WHERE id IN a RETURNING id"],
    ["INSERT INTO items (amount) VALUES (1) RETURNING id"],
    ["UPDATE items SET amount = 1 RETURNING id"],
    ["INSERT INTO search VALUES ('x')", "INSERT INTO search(search) VALUES ('rebuild')"],
    ["SELECT optimize(old) FROM old", "SELECT OPTIMIZE(old) FROM old LIMIT 1"],
    ["INSERT INTO boxes VALUES (1, 2, 3)", "DELETE FROM boxes_node"],
    ["CREATE TABLE IF NOT EXISTS items (id)", "CREATE TABLE IF NOT EXISTS more (id)"],
    ["DROP TABLE IF EXISTS search", "DROP INDEX IF EXISTS ix_items_amount"],
    [
        "CREATE TEMP VIEW v AS SELECT 1 AS i",
        "CREATE TEMP TRIGGER t INSTEAD OF INSERT ON v "
        "BEGIN INSERT INTO items (amount) VALUES (1); END",
        "INSERT INTO v VALUES (1)",
    ],
    ["SAVEPOINT a", "BEGIN IMMEDIATE", WRITE],
    ["BEGIN", WRITE, "COMMIT"],
    ["SAVEPOINT a", "SELECT writes()", "RELEASE a"],
    [f"{LONG} SELECT writes()", f"{LONG} SELECT swallows()"],
    [f"{LONG} UPDATE items SET amount = 9", f"{LONG}; PRAGMA user_version = 9"],
    ["ATTACH '{directory}/app.db' AS again", "INSERT INTO again.items (amount) VALUES (1)"],
    ["ATTACH '{directory}/app.db' AS again", "SELECT writes()", "PRAGMA again.user_version = 3"],
    ["ATTACH '{directory}/app.db' AS again", "PRAGMA again.wal_checkpoint(TRUNCATE)"],
]


def fingerprint(path: Path) -> list[str]:
    files = (path, path.with_name(path.name + "-wal"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
@pytest.mark.parametrize("trick", TRICKS + MORE, ids=lambda trick: trick[0][:40].replace("x", ""))
async def test_nothing_is_written_without_the_turn(
    make_engine: MakeEngine, path: Path, trick: list[str], level: str
) -> None:
    """While another task holds it, the file and its log stay unchanged, byte for byte."""
    engine: AsyncEngine = make_engine(SQLitePool, on_connect=on_connect, write_timeout=0.02)
    await create_items(engine)
    async with engine.begin() as connection:
        for sql in SETUP:
            assert await outcome(connection, sql) is None
        # The SQL that functions execute is already compiled.
        await outcome(connection, "INSERT INTO items (amount) SELECT swallows()")
    async with turn_taken(path):
        before = fingerprint(path)
        async with engine.execution_options(isolation_level=level).connect() as connection:
            for sql in trick:
                await outcome(connection, no_colon(sql.replace("{directory}", str(path.parent))))
                assert fingerprint(path) == before, sql
            await connection.commit()
            assert fingerprint(path) == before


@pytest.mark.parametrize("trick", MORE, ids=lambda trick: trick[0][:40].replace("x", ""))
async def test_with_the_turn_it_is_done(
    make_engine: MakeEngine, path: Path, trick: list[str]
) -> None:
    """Only SQLite itself refuses statements, if any are refused; the turn is released."""
    engine: AsyncEngine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    plain: Any = None
    async with engine.begin() as connection:
        for sql in SETUP:
            await outcome(connection, sql)
    async with engine.connect() as connection:
        plain = sqlite3.connect(path, isolation_level=None)
        for sql in trick:
            found = await outcome(
                connection, no_colon(sql.replace("{directory}", str(path.parent)))
            )
            assert "turn" not in str(found)
        raw = await driver(connection)
        assert (turn_of(path).holder is not None) >= raw.in_transaction or "BEGIN" in trick[0]
        await connection.rollback()
        assert turn_of(path).holder is None
        plain.close()
