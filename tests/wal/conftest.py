"""Fixtures: databases with small limits, and with a log and its checkpointer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.files.lasting_lock import LastingLocks
from sa_sqlite_pool.wal import one_checkpoint
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer
from tests.wal.checkpointing import Database, open_checkpointer
from tests.wal.facade import SMALL


@pytest.fixture
async def small(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Provide a database with a soft limit of 64 KiB, a hard limit of 256 KiB, and a table."""
    async with SQLiteDatabase(path, wal=SMALL) as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)"))
        yield db


@pytest.fixture(params=[True, False], ids=["affected", "fixed"])
def affected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Provide both cases: SQLite is treated as a version that can lose commits, or not."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: request.param)
    return bool(request.param)


@pytest.fixture
def no_lasting_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a database lose its locks, as on a system that has only POSIX locks."""
    monkeypatch.setattr(LastingLocks, "hold", lambda *_: None)


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    yield database
    database.other.close()


@pytest.fixture
async def checkpointer(database: Database, affected: bool) -> AsyncIterator[Checkpointer]:
    checkpointer = await open_checkpointer(database.path)
    yield checkpointer
    await checkpointer.close()
