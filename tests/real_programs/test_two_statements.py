"""A text of two statements: the driver executes only one, and refuses the text.

This package replaces or delays some texts, such as BEGIN; then the second statement must not be
dropped without an error, either.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from sa_sqlite_pool import SQLiteDatabase

from .doors import Application, Door, Executor

# Before Python 3.11, sqlite3 raises a Warning, which SQLAlchemy does not wrap.
REFUSED = (ProgrammingError, OperationalError, sqlite3.Warning)
ONE_AT_A_TIME = "one statement at a time"
WHEN_COMPILED = "Safety level may not be changed"  # SQLite sets it when it compiles the PRAGMA

FIRSTS = [
    "BEGIN",
    "begin immediate",
    "-- first\nBEGIN",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT a",
    "RELEASE a",
    "ROLLBACK TO a",
    "PRAGMA optimize",
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = NORMAL",
    "VACUUM",
    "SELECT 1",
    "INSERT INTO notes VALUES ('first')",
]
BEFORE = {
    "first": [],
    "after-a-read": ["SELECT * FROM notes"],
    "after-a-write": ["INSERT INTO notes VALUES ('before')"],
    "in-a-savepoint": ["SAVEPOINT a"],
}


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE notes (body TEXT)")
    return app


async def refused(executor: Executor, first: str) -> None:
    with pytest.raises(REFUSED, match=f"{ONE_AT_A_TIME}|{WHEN_COMPILED}"):
        await executor.execute(text(f"{first}; INSERT INTO notes VALUES ('second')"))


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("first", FIRSTS)
async def test_in_a_transaction(changing: Door, first: str, before: str) -> None:
    """It is refused, and the transaction continues."""
    app = await opened(changing)
    async with app.enter() as executor:
        for sql in BEFORE[before]:
            await executor.execute(text(sql))
        await refused(executor, first)
        await executor.execute(text("INSERT INTO notes VALUES ('after')"))
        await executor.commit()
    written = {"before", "after"} if before == "after-a-write" else {"after"}
    assert {body for (body,) in await app.rows("SELECT body FROM notes")} == written


@pytest.mark.parametrize("first", FIRSTS)
async def test_in_autocommit(door: Door, first: str) -> None:
    """It is refused, and leaves no transaction open."""
    app = await opened(door)
    async with app.writer.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await refused(connection, first)
        await connection.execute(text("INSERT INTO notes VALUES ('after')"))
        assert await app.rows("SELECT body FROM notes") == [("after",)]


@pytest.mark.parametrize("end", [";", " ; ", "; -- the end", ";\n/* the end */"])
async def test_one_statement_may_end_with_semicolons(door: Door, end: str) -> None:
    """They are not a second statement."""
    app = await opened(door)
    options = {"isolation_level": "AUTOCOMMIT"}
    async with app.writer.execution_options(**options).connect() as connection:
        for sql in ("BEGIN", "INSERT INTO notes VALUES ('one')", "SAVEPOINT a", "ROLLBACK TO a"):
            await connection.execute(text(sql + end))
        await connection.execute(text(f"COMMIT{end}"))
    assert await app.rows("SELECT body FROM notes") == [("one",)]


@pytest.mark.parametrize("first", ["BEGIN", "COMMIT", "SELECT 1"])
async def test_in_a_function(path: Path, first: str) -> None:
    """Functions in one hop, too, refuse it."""
    sql = text(f"{first}; INSERT INTO notes VALUES ('second')")
    async with SQLiteDatabase(f"sqlite+aiosqlite:///{path}") as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE notes (body TEXT)"))
        with pytest.raises(REFUSED, match=ONE_AT_A_TIME):
            await db.run_write_core(lambda connection: connection.execute(sql).rowcount)
