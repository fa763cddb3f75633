"""A database with a table, and the statements that its writer sends to SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures import shared_transaction
from tests.closures.work import Sent
from tests.helpers import create_items


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of calls that share a transaction does not depend on how busy the machine is."""
    monkeypatch.setattr(shared_transaction, "LONGEST_SECONDS", 60.0)


@pytest.fixture
def sent() -> Sent:
    """Return a record of the statements of all SQLite connections of a database."""
    return Sent()


@pytest.fixture
async def db(path: Path, sent: Sent) -> AsyncIterator[SQLiteDatabase]:
    def on_connect(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(sent.append)

    async with SQLiteDatabase(path, on_connect=on_connect) as database:
        await create_items(database.writer_engine)
        sent.clear()
        yield database


@pytest.fixture
async def one(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Yield a database with one reader, for which calls wait until it is returned."""
    async with SQLiteDatabase(path, readers=1) as database:
        await create_items(database.writer_engine)
        yield database
