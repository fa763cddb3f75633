"""The threads in which statements run, as reported by SQLite's trace callback."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.turn.snapshots import Snapshots

READ = "SELECT amount FROM items WHERE id = 1"
WRITE = "UPDATE items SET amount = amount + 1 WHERE id = 1"
COUNT = (
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
    "SELECT max(i) FROM n"
)
LONG = COUNT.format(50_000)

LEARNING = 4
"""The number of runs after which any short statement is known to be short."""


class Run(NamedTuple):
    sql: str
    inline: bool


class Trace:
    """``on_connect=trace.on_connect``: records all statements of the connections, in order.

    SQLite reports a statement when it starts: https://www.sqlite.org/c3ref/trace_v2.html
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._loop = threading.get_ident()

    def on_connect(self, connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(self._note)

    def _note(self, sql: str) -> None:
        self.runs.append(Run(sql, threading.get_ident() == self._loop))

    @contextmanager
    def recorded(self) -> Iterator[list[Run]]:
        """Record the runs within the block."""
        recorded: list[Run] = []
        before = len(self.runs)
        yield recorded
        recorded += self.runs[before:]


async def learn(engine: AsyncEngine, *statements: str) -> None:
    """Run the statements until they are known, each time in a committed transaction."""
    for _ in range(LEARNING):
        async with engine.begin() as connection:
            for sql in statements:
                await connection.execute(text(sql))


async def run(engine: AsyncEngine, *statements: str) -> list[Any]:
    """Run the statements in one transaction; return the first column of each."""
    async with engine.begin() as connection:
        results = [await connection.execute(text(sql)) for sql in statements]
        return [result.scalars().all() if result.returns_rows else None for result in results]


def snapshots_of(engine: AsyncEngine) -> Snapshots:
    pool = engine.pool
    assert isinstance(pool, FairPool)
    assert pool.keeper is not None
    return pool.keeper.snapshots
