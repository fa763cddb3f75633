"""Functions for ``run_write()``, and a line in which they wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from sa_sqlite_pool import SQLiteDatabase
from tests.helpers import ENDLESS, UPDATE_FIRST, turn_of


class Sent(list[str]):
    """Statements in order."""

    def starting(self, word: str) -> int:
        return sum(statement.upper().startswith(word) for statement in self)


def add(connection: Connection, key: int) -> int:
    """Insert one row."""
    connection.execute(text("INSERT INTO items (id, amount) VALUES (:id, 1)"), {"id": key})
    return key


def add_and_fail(connection: Connection, key: int) -> None:
    add(connection, key)
    raise ZeroDivisionError(f"after {key}")


def bump(connection: Connection) -> None:
    connection.execute(UPDATE_FIRST)


def ids(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT id FROM items ORDER BY id")).scalars())


async def added(db: SQLiteDatabase) -> list[int]:
    """Return the ids beyond the initial three."""
    return [key for key in await db.run_read_core(ids) if key > 3]


class Inside:
    """A function that stays until it is told to leave."""

    def __init__(self, then: Callable[[Connection], Any] = lambda _: None) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.runs = 0
        self._then = then

    def __call__(self, connection: Connection) -> Any:
        self.runs += 1
        self.entered.set()
        assert self.leave.wait(30)
        return self._then(connection)

    async def until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 30)


@asynccontextmanager
async def turn_held(db: SQLiteDatabase) -> AsyncIterator[None]:
    """Keep other tasks from writing meanwhile; new calls wait in line."""
    async with db.writer_engine.connect():
        yield


async def in_line(
    db: SQLiteDatabase, path: Path, *calls: Callable[[], Awaitable[Any]]
) -> list[Any]:
    """Make the calls wait in line in this order, and return their results or errors."""
    tasks = []
    async with turn_held(db):
        for call in calls:
            tasks.append(asyncio.ensure_future(call()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert turn_of(path).waiting
    return await asyncio.gather(*tasks, return_exceptions=True)


async def waiting(db: SQLiteDatabase, *calls: Callable[[Connection], Any]) -> list[Any]:
    """Make ``calls`` wait in this order until a function ahead of them has ended."""
    inside = Inside()
    first = asyncio.ensure_future(db.run_read_core(inside))
    await inside.until_entered()
    tasks = [asyncio.ensure_future(db.run_read_core(call)) for call in calls]
    await asyncio.sleep(0)
    inside.leave.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


LONG = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
    "SELECT count(*) FROM n"
)
ENDLESS_WRITE = text(
    "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n) "
    "INSERT INTO items (id, amount) SELECT i, 0 FROM n"
)


class Counting:
    """A function that reports when it has begun."""

    def __init__(self, sql: object = ENDLESS) -> None:
        self.begun = threading.Event()
        self._sql = sql

    def __call__(self, connection: Connection) -> None:
        add(connection, 50)
        self.begun.set()
        connection.execute(self._sql)  # type: ignore[call-overload]


async def cancelled(task: asyncio.Future[Any]) -> bool:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False
