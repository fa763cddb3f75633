"""Statements of megabytes: the event loop continues while they are classified and run."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

import pytest
from sqlalchemy import text

from .doors import OURS, STOCK, Application, Door, is_locked

without_stock = pytest.mark.parametrize("door", OURS, indirect=True)

IDS = ",".join(str(number) for number in range(30_000))
LITERAL = "x" * 1_000_000
BLANK = " " * 1_000_000

SELECTS = {
    "ids": f"SELECT count(*) FROM t WHERE id IN ({IDS})",
    "literal": f"SELECT length('{LITERAL}')",
    "blank": f"SELECT{BLANK}1",
    "comment": f"/*{BLANK}*/ SELECT 1",
    "line comments": "-- a line\n" * 50_000 + "SELECT 1",
    "unfinished quotes": "SELECT length('" + "''" * 200_000 + "')",
    "cte": f"WITH a AS (SELECT '{LITERAL}' AS b) SELECT length(b) FROM a",
}
INSERTS = {
    "values": "INSERT INTO t (x) VALUES " + ",".join("(1)" for _ in range(30_000)),
    "cte": f"WITH a AS (SELECT '{LITERAL}' AS b) INSERT INTO t (x) SELECT length(b) FROM a",
    "comment": f"/*{BLANK}*/ INSERT INTO t (x) VALUES (1)",
    "pragma-like": f"INSERT INTO t (x) VALUES (length('PRAGMA {LITERAL}'))",
}


async def work_of_the_loop(work: Coroutine[Any, Any, object]) -> float:
    """Return the CPU seconds that the loop's thread needs until ``work`` is done."""
    before = time.thread_time()
    await work
    return time.thread_time() - before


async def session_executes(app: Application, sql: str) -> None:
    async with app.transaction() as session:
        await session.execute(text(sql))


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
    return app


async def compare(door: Door, sql: str) -> None:
    """SQLAlchemy itself scans a text; the package may add as much again, but no more."""
    stock = Door(STOCK, door.path.with_name("stock.db"), door.enter_by)
    control, app = await opened(stock), await opened(door)
    try:
        for number in range(3):
            # The text differs each time: only the first encounter with a statement counts.
            text = f"{sql} -- {number}"
            allowed = 2 * await work_of_the_loop(session_executes(control, text)) + 0.03
            if (needed := await work_of_the_loop(session_executes(app, text))) < allowed:
                return
        assert needed < allowed
    finally:
        await stock.close()


@without_stock
@pytest.mark.parametrize("sql", SELECTS.values(), ids=SELECTS)
async def test_the_loop_is_free_beside_a_long_select(door: Door, sql: str) -> None:
    """Reads are recognized in bounded time, in a routed session, too, and run in a thread."""
    await compare(door, sql)


@without_stock
@pytest.mark.parametrize("sql", INSERTS.values(), ids=INSERTS)
async def test_the_loop_is_free_beside_a_long_insert(door: Door, sql: str) -> None:
    """The same applies to writes."""
    await compare(door, sql)


@pytest.mark.parametrize("sql", INSERTS.values(), ids=INSERTS)
async def test_what_is_long_is_still_judged_rightly(door: Door, sql: str) -> None:
    """It acquires the lock, and rollback undoes it."""
    app = await opened(door)
    async with app.session() as session:
        await session.execute(text(sql))
        if not door.stock:  # which sends BEGIN only if the first word is INSERT
            assert is_locked(app.path)
        await session.rollback()
    if not door.stock:
        assert await app.value("SELECT count(*) FROM t") == 0
