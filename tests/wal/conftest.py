"""Fixtures: a database with small limits, and what is said about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from tests.wal.facade import SMALL


@pytest.fixture
async def small(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Soft limit 64 KiB, hard limit 256 KiB, with a table."""
    async with SQLiteDatabase(path, wal=SMALL) as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)"))
        yield db
