"""``restore()``: a backup replaces a database that is not in use."""

from __future__ import annotations

import random
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from sa_sqlite_pool import (
    DatabaseNotUsableError,
    SQLiteDatabase,
    restore,
)
from tests.backup import ledger
from tests.backup.ledger import content, entries
from tests.backup.restoring import MODES, backup, make, names, refused
from tests.helpers import files_beside
from tests.wal.others import OtherProcess

__all__ = ["backup"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
async def test_over_a_database(path: Path, backup: Path, mode: str, page_size: int) -> None:
    """For any journal mode and page size, the content is that of the backup, and no log is left."""
    make(path, mode, page_size)
    inode = path.stat().st_ino
    path.chmod(0o640)
    await restore(backup, path)
    assert entries(path) == 3
    assert content(path) == content(backup)
    assert names(path) <= {"app.db"} | ({"app.db-journal"} if mode == "TRUNCATE" else set())
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (inode, 0o640)
    async with SQLiteDatabase(path) as db:
        await ledger.post(db, random.Random(9))
    assert entries(path) == 4


@pytest.mark.parametrize("size", [0, 100000])
async def test_over_a_smaller_and_a_larger_one(path: Path, backup: Path, size: int) -> None:
    """An empty file is a database without tables."""
    path.touch()
    if size:
        make(path, rows=2000)
    await restore(backup, path)
    assert entries(path) == 3
    assert path.stat().st_size == backup.stat().st_size


async def test_over_one_that_was_not_closed(path: Path, backup: Path) -> None:
    """The log of a killed process does not reappear and spoil the backup."""
    with OtherProcess(path) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE old (id)")
        other.execute("INSERT INTO old VALUES (1)")
    assert {"app.db-wal"} <= names(path)
    await restore(backup, path)
    assert names(path) == {"app.db"}
    assert entries(path) == 3


async def test_where_there_is_none(path: Path, backup: Path) -> None:
    """It is created in one step, with the permissions of the backup."""
    backup.chmod(0o640)
    await restore(backup, path)
    assert content(path) == content(backup)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path) == {"app.db"}


async def test_a_backup_with_the_name_of_an_unfinished_one(path: Path, backup: Path) -> None:
    """It is not removed for the copy of itself; over a database, there is no such copy."""
    unfinished = backup.rename(path.with_name("app.db.unfinished"))
    before = unfinished.read_bytes()
    await refused(
        unfinished, path, "app.db.unfinished has the name under which", DatabaseNotUsableError
    )
    assert unfinished.read_bytes() == before
    assert names(path) == {"app.db.unfinished"}
    make(path)
    await restore(unfinished, path)
    assert content(path) == content(unfinished)


@pytest.mark.parametrize("side", ["-wal", "-journal"])
async def test_what_is_left_of_one_that_was_deleted(path: Path, backup: Path, side: str) -> None:
    """SQLite would apply a leftover log to the new database. The log may be all that exists."""
    beside = path.with_name(f"app.db{side}")
    beside.write_bytes(b"frames")
    await refused(backup, path, f"there is app.db{side} beside it.*move both away")
    assert beside.read_bytes() == b"frames"
    assert names(path) == {f"app.db{side}"}
    beside.unlink()
    await restore(backup, path)
    assert entries(path) == 3


async def test_a_backup_in_wal_mode(path: Path, copy: Path) -> None:
    """The backup is a file copy of a closed database, and no file is created beside it."""
    make(copy, "WAL")
    make(path, "WAL", rows=5)
    before = copy.read_bytes()
    await restore(copy, path)
    assert files_beside(copy) == {"copy.db"}
    assert copy.read_bytes() == before
    assert content(path) == content(copy)


@pytest.mark.parametrize("as_what", ["text", "URL", "text URL", "path"])
async def test_a_database_as_the_facade_takes_it(path: Path, backup: Path, as_what: str) -> None:
    """It is given by path or by URL."""
    url = f"sqlite+aiosqlite:///{path}"
    ways: dict[str, Any] = {"text": str(path), "URL": make_url(url), "text URL": url, "path": path}
    database = ways[as_what]
    await restore(str(backup), database)
    assert entries(path) == 3


async def test_over_and_over(path: Path, backup: Path) -> None:
    """After a backup, further writes and a restore, the state of the backup is back."""
    for round_ in range(3):
        await restore(backup, path)
        async with SQLiteDatabase(path) as db:
            await ledger.post(db, random.Random(round_))
            await db.backup(backup)
            await ledger.post(db, random.Random(round_))
        assert (entries(path), entries(backup)) == (5 + round_, 4 + round_)
