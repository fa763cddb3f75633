"""A database with a table, and a count of the ways in which prepared reads run."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, select, text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.database_file import database_file
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.prepared.read import PreparedRead
from sa_sqlite_pool.transactions import placement
from sa_sqlite_pool.turn.snapshots import Snapshots
from tests.helpers import Item, create_items


class Ways:
    """Counts the prepared reads that ran on the loop, in line, and by SQLAlchemy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._counted: Counter[str] = Counter()
        at_once: Any = FairPool.read_at_once

        def read_at_once(pool: FairPool, *args: Any) -> Any:
            reply = at_once(pool, *args)
            self._counted["at_once"] += reply is not None
            return reply

        monkeypatch.setattr(FairPool, "read_at_once", read_at_once)
        for way in ("_check_out_and_read", "_read_by_sqlalchemy"):
            monkeypatch.setattr(PreparedRead, way, self._counting(way))

    def _counting(self, way: str) -> Any:
        original = getattr(PreparedRead, way)

        async def counted(read: PreparedRead, *args: Any) -> Any:
            self._counted[way] += 1
            return await original(read, *args)

        return counted

    @property
    def taken(self) -> tuple[int, int, int]:
        """Return the three numbers since the last call."""
        counted, self._counted = self._counted, Counter()
        return (
            counted["at_once"],
            counted["_check_out_and_read"],
            counted["_read_by_sqlalchemy"],
        )


COUNT_TO = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :rows) "
    "SELECT count(*) FROM n"
)
"""A statement whose length is a parameter."""

AT_ONCE, IN_LINE, BY_SQLALCHEMY = (1, 0, 0), (0, 1, 0), (0, 0, 1)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide whether a statement is short independently of the machine's load."""
    monkeypatch.setattr(placement, "SHORT_SECONDS", 60.0)
    monkeypatch.setattr(placement, "_LONG_SECONDS", 60.0)


@pytest.fixture
def placed(request: pytest.FixtureRequest) -> None:
    """Let statements run where they are placed, instead of where ``--placement`` says."""
    if request.config.getoption("--placement") != "auto":
        pytest.skip("is about where statements run")


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, placed: None) -> Ways:
    return Ways(monkeypatch)


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Provide a database with three items and one reader, which therefore runs all statements."""
    async with SQLiteDatabase(path, readers=1) as database:
        await create_items(database.writer_engine)
        yield database


BY_ID = select(Item.id, Item.amount).where(Item.id == bindparam("id"))


async def learned(db: SQLiteDatabase) -> PreparedRead:
    """Return a read that runs on the loop from now on."""
    read = db.prepare(BY_ID)
    for _ in range(3):
        await read.one(id=1)
    return read


def snapshots(path: Path) -> Snapshots:
    return database_file(Location(str(path))).snapshots


@pytest.fixture
async def by_id(db: SQLiteDatabase) -> PreparedRead:
    return await learned(db)
