"""A function that reads has met a lock and then finds no reader, without WAL."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from sa_sqlite_pool import ReadTimeout, SQLiteDatabase
from sa_sqlite_pool.transactions import locks
from tests.helpers import create_items


async def test_it_waits_for_a_reader_no_longer_than_others(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its own time limit, and so have those that wait behind it."""
    met, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        met.set()
        await go_on.wait()

    async def reads() -> object:
        return await db.run_read_core(count)

    monkeypatch.setattr(locks, "pause", pause)
    journal = {"journal_mode": "TRUNCATE"}
    async with SQLiteDatabase(path, readers=1, read_timeout=0.5, pragmas=journal) as db:
        await create_items(db.writer_engine)
        assert await reads() == 3
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as outside:
            outside.execute("BEGIN EXCLUSIVE")
            first = asyncio.ensure_future(reads())
            await met.wait()
        async with db.reader_engine.connect():
            go_on.set()
            calls = [first, *(asyncio.ensure_future(reads()) for _ in range(2))]
            ended = asyncio.gather(*calls, return_exceptions=True)
            for outcome in await asyncio.wait_for(ended, 30):
                assert isinstance(outcome, ReadTimeout)
        assert await reads() == 3


def count(connection: Connection) -> int:
    found: int = connection.execute(text("SELECT count(*) FROM items")).scalar_one()
    return found
