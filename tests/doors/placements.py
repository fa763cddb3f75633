"""Where statements run, as SQLite's trace callback sees it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

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


@pytest.fixture
def trace(request: pytest.FixtureRequest) -> Trace:
    if request.config.getoption("--placement") != "auto":
        pytest.skip("this is about the placement that learns")
    return Trace()


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.begin() as connection:
        yield connection


async def learn(engine: AsyncEngine, *statements: str) -> None:
    """Run them until they are known, each time in a transaction that is committed."""
    for _ in range(LEARNING):
        async with engine.begin() as connection:
            for sql in statements:
                await connection.execute(text(sql))
