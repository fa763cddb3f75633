"""Savepoints of a swap-in connection are sent with their first write, and behave as on stock."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked, outcome, outcomes, stock_engine, turn_taken
from tests.helpers import Item, amounts, create_items, driver, until

COMMENT = "/*controller='index',traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-1'*/"

ONE = "UPDATE items SET amount = 1 WHERE id = 1"
TWO = "UPDATE items SET amount = 2 WHERE id = 2"
FAILS = "INSERT INTO items (id) VALUES (1)"
SHOW = "SELECT amount FROM items ORDER BY id"

SCRIPTS = {
    "released": ["SAVEPOINT a", ONE, "RELEASE a", SHOW],
    "rolled back to": ["SAVEPOINT a", ONE, "ROLLBACK TO a", SHOW, TWO, "RELEASE a", SHOW],
    "read first": [SHOW, "SAVEPOINT a", SHOW, ONE, "ROLLBACK TO SAVEPOINT a", SHOW],
    "read only": ["SAVEPOINT a", SHOW, "RELEASE a", "SAVEPOINT b", "ROLLBACK TO b", SHOW, ONE],
    "nested": ["SAVEPOINT a", "SAVEPOINT b", ONE, "ROLLBACK TO b", TWO, "RELEASE a", SHOW],
    "nested, written between": ["SAVEPOINT a", ONE, "SAVEPOINT b", TWO, "ROLLBACK TO b", SHOW],
    "the inner is released": [
        "SAVEPOINT a",
        "SAVEPOINT b",
        "RELEASE b",
        ONE,
        "ROLLBACK TO a",
        SHOW,
    ],
    "the outer is released": ["SAVEPOINT a", "SAVEPOINT b", "RELEASE a", "RELEASE b", ONE, SHOW],
    "the outer is rolled back to": [
        *("SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "RELEASE b", ONE, "ROLLBACK TO a", SHOW),
    ],
    "of one name": [
        *("SAVEPOINT a", "SAVEPOINT A", "RELEASE a", ONE, "ROLLBACK TO a", TWO, "RELEASE a"),
        *("RELEASE a", SHOW),
    ],
    "rolled back to twice": ["SAVEPOINT a", "ROLLBACK TO a", ONE, "ROLLBACK TO a", TWO, SHOW],
    "there is none": ["RELEASE a", ONE, "ROLLBACK TO a", SHOW],
    "there is none of that name": ["SAVEPOINT a", "RELEASE b", "ROLLBACK TO b", ONE, "RELEASE a"],
    "after a release": ["SAVEPOINT a", "RELEASE a", "ROLLBACK TO a", ONE, SHOW],
    "comments": [
        f"SAVEPOINT a {COMMENT}",
        f"{COMMENT} SAVEPOINT b -- and more",
        f"ROLLBACK TO SAVEPOINT b {COMMENT}",
        f"{ONE} {COMMENT}",
        f"RELEASE SAVEPOINT a {COMMENT}",
        SHOW,
    ],
    "quoted": ['SAVEPOINT "a b"', "RELEASE 'A B'", "SAVEPOINT [c]", ONE, "ROLLBACK TO `C`", SHOW],
    "of other letters": ["SAVEPOINT é", "SAVEPOINT è$1", "RELEASE é", ONE, "RELEASE è$1"],
    "after an error": ["SAVEPOINT a", FAILS, "ROLLBACK TO a", ONE, "RELEASE a", SHOW],
    "an error after a write": [ONE, "SAVEPOINT a", TWO, FAILS, "ROLLBACK TO a", SHOW],
    "no such table": ["SAVEPOINT a", "INSERT INTO nowhere VALUES (1)", "RELEASE a", ONE, SHOW],
    "tables": [
        *("SAVEPOINT a", "CREATE TABLE more (id)", "INSERT INTO more VALUES (1)", "ROLLBACK TO a"),
        *("SELECT * FROM more", "CREATE TABLE more (id)", "SELECT * FROM more"),
    ],
    "temp tables": [
        *("SAVEPOINT a", "CREATE TEMP TABLE more (id)", "INSERT INTO more VALUES (1)"),
        *("ROLLBACK TO a", "SELECT * FROM more", "CREATE TEMP TABLE more (id)", "DROP TABLE more"),
        *("RELEASE a", "SELECT * FROM more"),
    ],
    "temp rows": [
        *("CREATE TEMP TABLE more (id)", "SAVEPOINT a", "INSERT INTO more VALUES (1)"),
        *("ROLLBACK TO a", "SELECT * FROM more", ONE, "DROP TABLE more"),
    ],
    "pragmas": [
        *("SAVEPOINT a", "PRAGMA user_version = 7", "PRAGMA user_version", "ROLLBACK TO a"),
        *("PRAGMA user_version", "RELEASE a", "PRAGMA user_version"),
    ],
    "a transaction in it": ["SAVEPOINT a", "BEGIN", "BEGIN IMMEDIATE", ONE, "ROLLBACK TO a", SHOW],
    "executed as text, COMMIT": ["SAVEPOINT a", ONE, "COMMIT", SHOW],
    "executed as text, ROLLBACK": ["SAVEPOINT a", ONE, "ROLLBACK", SHOW],
}


async def run(engine: AsyncEngine, statements: list[str], *, commits: bool) -> list[Any]:
    async with engine.connect() as connection:
        found = await outcomes(connection, statements)
        await (connection.commit() if commits else connection.rollback())
        found.append(await outcome(connection, SHOW))
        found.append(await outcome(connection, "PRAGMA user_version"))
    return found


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("role", ["auto", "writer"])
@pytest.mark.parametrize("script", SCRIPTS)
async def test_as_on_stock(
    make_engine: MakeEngine, tmp_path: Path, script: str, role: str, commits: bool
) -> None:
    """Each statement returns the same rows or raises the same error; the final content is equal."""
    stock = stock_engine(make_engine, tmp_path / "stock.db")
    ours = make_engine(SQLitePool)
    for engine in (stock, ours):
        await create_items(engine)
    ours = ours.execution_options(sqlite_role=role)
    expected = await run(stock, SCRIPTS[script], commits=commits)
    assert await run(ours, SCRIPTS[script], commits=commits) == expected


async def test_a_savepoint_alone_takes_no_turn(swap_in: AsyncEngine, path: Path) -> None:
    """Before the first write there is nothing to roll back."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        async with turn_taken(path) as asked:
            for sql in (
                "SAVEPOINT a",
                SHOW,
                "SAVEPOINT b",
                SHOW,
                "ROLLBACK TO b",
                "RELEASE b",
                SHOW,
            ):
                await connection.execute(text(sql))
            assert not (await driver(connection)).in_transaction
            assert asked() == 0
        await connection.execute(text(ONE))
        assert is_locked(path)
        await connection.execute(text("ROLLBACK TO a"))
        assert await outcome(connection, SHOW) == [(0,)] * 3
        await connection.commit()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END", "commit()", "rollback()"])
async def test_those_that_wait_end_with_the_transaction(swap_in: AsyncEngine, end: str) -> None:
    """No deferred savepoint is sent with the first write of the next transaction."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(text("SAVEPOINT a"))
        if end.endswith(")"):
            await getattr(connection, end[:-2])()
        else:
            await connection.execute(text(end))
        await connection.execute(text(ONE))
        assert await outcome(connection, "RELEASE a") == "no such savepoint: a"
        await connection.rollback()


async def test_those_that_wait_end_with_the_loan(make_engine: MakeEngine) -> None:
    """A connection that is returned has no deferred savepoint."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SAVEPOINT a"))
    async with engine.connect() as connection:
        await connection.execute(text(ONE))
        assert await outcome(connection, "RELEASE a") == "no such savepoint: a"


async def test_in_autocommit_they_are_sent_at_once(swap_in: AsyncEngine, path: Path) -> None:
    """In AUTOCOMMIT, a savepoint is the transaction itself, as in SQLite."""
    await create_items(swap_in)
    engine = swap_in.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("SAVEPOINT a"))
        assert (await driver(connection)).in_transaction
        await connection.execute(text(ONE))
        assert is_locked(path)
        await connection.execute(text("ROLLBACK TO a"))
        await connection.execute(text(TWO))
        await connection.execute(text(f"RELEASE a {COMMENT}"))
        assert not is_locked(path)
        assert (await driver(connection)).executor.transaction.writing.begun is False
    assert await amounts(swap_in) == [0, 2, 0]


async def test_in_a_listener(make_engine: MakeEngine) -> None:
    """Until the application has the connection, they are sent at once, too."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    await engine.dispose()

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for sql in ("SAVEPOINT a", ONE, "ROLLBACK TO a", TWO, "RELEASE a"):
            cursor.execute(sql)
        cursor.close()

    assert await amounts(engine) == [0, 2, 0]


async def test_get_or_create(swap_in: AsyncEngine) -> None:
    """A session reads, tries to insert, and meets a row that another has inserted in between."""
    await create_items(swap_in)
    async with AsyncSession(swap_in) as session, session.begin():
        assert await session.get(Item, 9) is None
        async with AsyncSession(swap_in) as other, other.begin():
            other.add(Item(id=9, amount=90))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(Item(id=9, amount=1))
        found = await session.get(Item, 9)
        assert found is not None
        found.amount += 1
    assert await amounts(swap_in) == [0, 0, 0, 91]


@pytest.mark.parametrize("attached", [False, True])
async def test_a_lock_in_the_way_of_the_first_write(
    swap_in: AsyncEngine, path: Path, tmp_path: Path, attached: bool
) -> None:
    """The write waits for the lock; afterwards all savepoints exist."""
    await create_items(swap_in)
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    async with swap_in.connect() as connection:
        if attached:
            await connection.execute(text(f"ATTACH '{tmp_path}/other.db' AS other"))
        await connection.execute(text("SAVEPOINT a"))
        await connection.execute(text("SAVEPOINT b"))
        other.execute("BEGIN IMMEDIATE")
        raw = await driver(connection)
        hops = raw.worker.hops
        writing = asyncio.create_task(connection.execute(text(ONE)))
        await until(lambda: raw.worker.hops > hops + 3)
        assert not writing.done()
        other.execute("ROLLBACK")
        await writing
        assert await outcomes(connection, ["ROLLBACK TO b", TWO, "RELEASE a"]) == [None] * 3
        await connection.commit()
    other.close()
    assert await amounts(swap_in) == [0, 2, 0]
