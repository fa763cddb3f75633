"""Backups of a database without a write-ahead log."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import (
    ReadTimeout,
    SQLiteDatabase,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from tests.backup import ledger
from tests.backup.held import ROLLBACK, Held
from tests.backup.ledger import entries
from tests.helpers import files_beside, turn_of, until, until_waiting
from tests.wal.facade import said
from tests.wal.others import OtherProcess


async def test_without_wal_writers_wait_in_line(path: Path, copy: Path, held: Held) -> None:
    """They do not wait for SQLite's lock, where no error would name a reason; readers continue."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK, write_timeout=0.05, idle_warning=0.01) as db:
        await ledger.create(db)
        task = asyncio.create_task(db.backup(copy), name="nightly")
        await until(held.inside.is_set)
        with pytest.raises(WriteTimeout, match=r"task 'nightly'.*last SQL: BACKUP app\.db TO"):
            await ledger.post(db, random.Random(1))
        async with db.read() as session:
            assert await session.scalar(text("SELECT n FROM counter")) == 0
        held.leave.set()
        await task
        await ledger.post(db, random.Random(1))
        assert turn_of(path).holder is None
    assert (entries(copy), entries(path)) == (0, 1)


async def _warned_of_another(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Begin a transaction that does nothing, and wait until a warning reports it."""
    async with SQLiteDatabase(path, idle_warning=0.02) as db, db.write() as session:
        await session.execute(text("SELECT 1"))
        await until(lambda: said(caplog))


async def test_without_wal_it_is_not_called_idle(
    path: Path, tmp_path: Path, copy: Path, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds the turn, and uses it."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        await ledger.create(db)
    async with SQLiteDatabase(path, pragmas=ROLLBACK, idle_warning=0.02) as db:
        with caplog.at_level(logging.WARNING):
            task = asyncio.create_task(db.backup(copy))
            await until(held.inside.is_set)
            await _warned_of_another(tmp_path / "other.db", caplog)
        held.leave.set()
        await task
    assert all("other.db" in message for message in said(caplog))


async def test_without_wal_in_a_write_transaction(path: Path, copy: Path) -> None:
    """The task would wait for itself."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        await ledger.create(db)
        async with db.write() as session:
            await session.execute(text(ledger.COUNT))
            with pytest.raises(TurnAlreadyHeldError):
                await db.backup(copy)
        assert files_beside(copy) == set()


async def test_another_program_has_the_file_locked(path: Path, copy: Path) -> None:
    """It waits for the lock as a reader does."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK, read_timeout=0.05) as db:
        await ledger.create(db)
        with OtherProcess(path) as other:
            assert other.execute("BEGIN EXCLUSIVE") == "[]"
            with pytest.raises(ReadTimeout, match=r"waited 0\.05 s to read from app\.db"):
                await db.backup(copy)
            assert files_beside(copy) == set()
            task = asyncio.create_task(db.backup(copy))
            await until_waiting(0, turn_of(path))
            assert other.execute("COMMIT") == "[]"
        await task
    assert entries(copy) == 0
