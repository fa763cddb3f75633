"""Where statements run, as SQLite's trace callback sees it."""

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
"""Runs after which a short statement is known to be short, whatever it does."""


class Run(NamedTuple):
    sql: str
    inline: bool


class Trace:
    """``on_connect=trace.on_connect``: all that the connections run, in order.

    SQLite reports a statement when it begins: https://www.sqlite.org/c3ref/trace_v2.html
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
        """What runs within the block."""
        recorded: list[Run] = []
        before = len(self.runs)
        yield recorded
        recorded += self.runs[before:]


async def learn(engine: AsyncEngine, *statements: str) -> None:
    """Run them until they are known, each time in a transaction that is committed."""
    for _ in range(LEARNING):
        async with engine.begin() as connection:
            for sql in statements:
                await connection.execute(text(sql))


async def run(engine: AsyncEngine, *statements: str) -> list[Any]:
    """The first column of each, in one transaction."""
    async with engine.begin() as connection:
        results = [await connection.execute(text(sql)) for sql in statements]
        return [result.scalars().all() if result.returns_rows else None for result in results]


def snapshots_of(engine: AsyncEngine) -> Snapshots:
    pool = engine.pool
    assert isinstance(pool, FairPool)
    assert pool.keeper is not None
    return pool.keeper.snapshots
