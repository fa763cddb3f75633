"""A restore over a damaged database, and from a file that is no backup."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from sa_sqlite_pool import (
    ConfigurationError,
    DamagedDatabaseError,
    DatabaseNotUsableError,
    NotADatabaseError,
    restore,
)
from tests.backup.held import Held
from tests.backup.ledger import entries
from tests.backup.restoring import ON_LINUX, Unchanged, backup, break_header, make, names, refused
from tests.helpers import until
from tests.wal.facade import said
from tests.wal.others import OtherProcess

__all__ = ["backup"]


def break_schema(path: Path) -> bytes:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1000)
    return path.read_bytes()


@pytest.mark.parametrize("damage", [break_header, break_schema])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_one_that_sqlite_cannot_read(
    path: Path, backup: Path, damage: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is replaced and kept, and a warning names the kept file: restores exist for this case."""
    make(path, mode)
    broken = damage(path)
    path.chmod(0o640)
    await restore(backup, path)
    assert entries(path) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    kept = path.with_name("app.db.damaged")
    assert names(path) == {"app.db", "app.db.damaged"}
    assert kept.read_bytes() == broken
    (warning,) = said(caplog)
    assert warning.endswith(f"it is kept as {kept}")


async def test_a_broken_page(path: Path, backup: Path) -> None:
    """A database that SQLite can open is restored like any other."""
    make(path)
    with path.open("r+b") as file:
        file.seek(50 * 4096)
        file.write(b"\xff" * 40960)
    await restore(backup, path)
    assert names(path) == {"app.db"}
    assert entries(path) == 3


async def test_a_damaged_one_is_kept_once(path: Path, backup: Path) -> None:
    """A file that was kept earlier is not overwritten."""
    make(path)
    broken = break_header(path)
    kept = path.with_name("app.db.damaged")
    kept.write_text("earlier")
    await refused(backup, path, "move that file away, and restore again", DatabaseNotUsableError)
    assert (path.read_bytes(), kept.read_text()) == (broken, "earlier")
    assert names(path) == {"app.db", "app.db.damaged"}


async def test_a_damaged_one_with_a_log(path: Path, backup: Path) -> None:
    """It is left unchanged to its owner: SQLite would move the log into it."""
    make(path)
    with OtherProcess(path) as other:
        other.execute("UPDATE old SET data = zeroblob(3000)")
    broken, log = break_header(path), path.with_name("app.db-wal").read_bytes()
    assert len(log) > 4096
    await refused(backup, path, "there is app.db-wal beside it, and SQLite would apply that")
    assert path.read_bytes() == broken
    assert path.with_name("app.db-wal").read_bytes() == log
    assert names(path) == {"app.db", "app.db-wal", "app.db-shm"}


async def test_a_damaged_one_where_the_system_does_not_tell(
    path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown which processes have it open, and SQLite has no locks in it."""
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.tells_users", False)
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.users", lambda path: [])
    make(path)
    broken = break_header(path)
    await refused(backup, path, "move it away, and restore again", NotADatabaseError)
    assert path.read_bytes() == broken
    assert names(path) == {"app.db"}


@ON_LINUX
async def test_a_damaged_one_in_use(path: Path, backup: Path, held: Held) -> None:
    """It is refused if it was opened before, or is opened during the restore."""
    make(path, "DELETE")
    broken = break_header(path)
    with path.open("rb"):
        await refused(backup, path, "is in use by this process")
    task = asyncio.create_task(restore(backup, path))
    await until(held.inside.is_set)
    with path.open("rb"):
        held.leave.set()
        with pytest.raises(exc.OperationalError, match="is in use by this process"):
            await task
    assert path.read_bytes() == broken
    assert names(path) == {"app.db"}


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _scratch(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_cut, DamagedDatabaseError, "copy.db is damaged; PRAGMA integrity_check reports: "),
        (_scratch, DamagedDatabaseError, "copy.db is damaged; PRAGMA integrity_check reports: "),
        (break_header, NotADatabaseError, "copy.db is not an SQLite database"),
        (lambda path: path.write_text("text" * 500), NotADatabaseError, "not an SQLite database"),
        (lambda path: path.write_bytes(b""), NotADatabaseError, "copy.db is empty"),
        (lambda path: path.unlink(), DatabaseNotUsableError, "there is no backup at .*copy.db"),
    ],
)
async def test_a_spoilt_backup(
    path: Path, backup: Path, spoil: Any, kind: type[sqlite3.Error], message: str
) -> None:
    """It is detected before the database is touched."""
    make(path)
    spoil(backup)
    with Unchanged(path):
        await refused(backup, path, message, kind)


@pytest.mark.parametrize("side", ["-wal", "-journal"])
async def test_a_backup_with_a_log(path: Path, backup: Path, side: str) -> None:
    """Such a backup is incomplete, or in use."""
    make(path)
    beside = backup.with_name(f"copy.db{side}")
    beside.write_bytes(b"frames")
    with Unchanged(path):
        await refused(backup, path, f"there is copy.db{side} beside it")


@pytest.mark.parametrize("by", ["path", "symbolic link", "hard link"])
async def test_the_database_itself(path: Path, copy: Path, by: str) -> None:
    """The database itself is refused as a backup."""
    make(path)
    if by == "symbolic link":
        copy.symlink_to(path)
    elif by == "hard link":
        os.link(path, copy)
    with Unchanged(path):
        await refused(
            path if by == "path" else copy, path, "is the database itself", DatabaseNotUsableError
        )


async def test_wrong_databases(tmp_path: Path, backup: Path) -> None:
    """In-memory databases, other kinds and missing directories are refused."""
    for database in (":memory:", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"):
        with pytest.raises(ConfigurationError, match="an in-memory database cannot be restored"):
            await restore(backup, database)
    with pytest.raises(ConfigurationError, match="postgresql"):
        await restore(backup, "postgresql+asyncpg://host/app")
    await refused(backup, tmp_path / "no" / "app.db", "does not exist", DatabaseNotUsableError)
    await refused(backup, tmp_path, "is a directory", DatabaseNotUsableError)
