"""Fixtures: an open ledger, and the path of its copies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from tests.backup import ledger
from tests.backup.held import Held


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(path) as database:
        await ledger.create(database)
        yield database


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a path in a new directory, so that any other file there is noticed."""
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "copy.db"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)
