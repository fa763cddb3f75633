"""Cursors as defined by PEP 249 and SQLAlchemy's own drivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool.compat.greenlets import greenlet_spawn
from sa_sqlite_pool.driver.cursors import Cursor
from tests.helpers import create_items, driver

IDS = "SELECT id FROM items ORDER BY id"
ROWS = [(1,), (2,), (3,)]


async def use(engine: AsyncEngine, function: Callable[[Cursor], Any]) -> Any:
    """Return the result of ``function`` for a cursor that has just executed ``IDS``."""
    await create_items(engine)

    def run(raw: Any) -> Any:
        return function(raw.execute(IDS))

    async with engine.connect() as connection:
        return await greenlet_spawn(run, await driver(connection))


def with_array(cursor: Cursor, size: int) -> Cursor:
    cursor.arraysize = size
    return cursor


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [
        (lambda it: [it.fetchone() for _ in range(5)], [*ROWS, None, None]),
        (lambda it: [it.fetchmany(2) for _ in range(3)], [ROWS[:2], ROWS[2:], []]),
        (lambda it: [it.fetchmany(), it.fetchmany()], [ROWS[:1], ROWS[1:2]]),
        (lambda it: with_array(it, 2).fetchmany(), ROWS[:2]),
        (lambda it: with_array(it, 2).fetchmany(1), ROWS[:1]),
        (lambda it: [it.fetchmany(0), it.fetchmany(-1), it.fetchmany(9)], [[], [], ROWS]),
        (lambda it: [it.fetchall(), it.fetchall()], [ROWS, []]),
        (lambda it: [it.fetchone(), list(it), it.fetchone()], [ROWS[0], ROWS[1:], None]),
        (lambda it: [next(iter(it)), it.fetchone(), it.fetchall()], [*ROWS[:2], ROWS[2:]]),
    ],
)
async def test_each_row_once(
    swap_in: AsyncEngine, fetch: Callable[[Cursor], Any], expected: Any
) -> None:
    """Each row is fetched once and in order, by any method."""
    assert await use(swap_in, fetch) == expected


async def test_a_closed_cursor_has_no_rows(swap_in: AsyncEngine) -> None:
    def close(cursor: Cursor) -> Any:
        cursor.close()
        return [cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall(), list(cursor)]

    assert await use(swap_in, close) == [None, [], [], []]


async def test_a_cursor_that_executes_again(swap_in: AsyncEngine) -> None:
    """The rows of the previous statement are gone."""

    def again(cursor: Cursor) -> Any:
        cursor.fetchone()
        cursor.execute("SELECT 7")
        rows = cursor.fetchall()
        cursor.execute("UPDATE items SET amount = 1")
        return rows, cursor.fetchall(), cursor.rowcount

    assert await use(swap_in, again) == ([(7,)], [], 3)
