"""Helpers that the tests of restores share."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import exc

from sa_sqlite_pool import (
    DatabaseInUseError,
    SQLiteDatabase,
    restore,
)
from tests.backup import ledger
from tests.backup.ledger import content
from tests.helpers import files_beside

ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has files open"
)

MODES = ["WAL", "DELETE", "TRUNCATE"]


def make(path: Path, mode: str = "WAL", page_size: int = 4096, rows: int = 500) -> None:
    """Create a closed database that is not the ledger."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE old (id INTEGER PRIMARY KEY, data BLOB)")
        connection.executemany("INSERT INTO old (data) VALUES (?)", [(b"x" * 3000,)] * rows)
        connection.commit()


@pytest.fixture
async def backup(copy: Path, tmp_path: Path) -> Path:
    """Return a backup of a ledger with three entries, made by ``db.backup()``."""
    async with SQLiteDatabase(tmp_path / "origin.db") as db:
        await ledger.create(db)
        for seed in range(3):
            await ledger.post(db, random.Random(seed))
        await db.backup(copy)
    (tmp_path / "origin.db").unlink()
    return copy


def names(path: Path) -> set[str]:
    return files_beside(path) - {"backups"}


class Unchanged:
    """``with Unchanged(path):`` checks that the database is unchanged, with no files beside it."""

    def __init__(self, path: Path, beside: set[str] | None = None) -> None:
        self._path = path
        self._beside = {path.name} if beside is None else beside

    def __enter__(self) -> None:
        self._before = content(self._path)
        self._mode = header_versions(self._path)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            assert names(self._path) == self._beside
            assert header_versions(self._path) == self._mode
            assert content(self._path) == self._before


def header_versions(path: Path) -> bytes:
    """Return the bytes of the header that show whether a closed database is in WAL mode."""
    return path.read_bytes()[18:20]


async def refused(
    backup: Path, database: Path, message: str, kind: type[sqlite3.Error] = DatabaseInUseError
) -> None:
    with pytest.raises(exc.DatabaseError, match=message) as raised:
        await asyncio.wait_for(restore(backup, database), 20)
    assert isinstance(raised.value.orig, kind)


def break_header(path: Path) -> bytes:
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    return path.read_bytes()
