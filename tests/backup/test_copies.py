"""The file that a backup creates."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool import (
    ConfigurationError,
    DamagedDatabaseError,
    DatabaseClosedError,
    SQLiteDatabase,
    restore,
)
from sa_sqlite_pool.backup import page_copy
from tests.backup import ledger
from tests.backup.held import ROLLBACK
from tests.backup.ledger import content, entries
from tests.helpers import files_beside

KIB = 1024


def damage(path: Path) -> None:
    """Overwrite one page in the middle of a closed database."""
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
async def test_permissions(db: SQLiteDatabase, path: Path, copy: Path, mode: int) -> None:
    """The copy has the permissions of its database, from its first byte on."""
    path.chmod(mode)
    seen: set[int] = set()

    def progress(copied: int, total: int) -> None:
        seen.add(stat.S_IMODE(os.stat(f"{copy}.unfinished").st_mode))

    await db.backup(copy, progress=progress, pages_per_step=20)
    assert stat.S_IMODE(copy.stat().st_mode) == mode
    assert seen == {mode}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away"
)
async def test_the_owner(db: SQLiteDatabase, path: Path, copy: Path) -> None:
    """A copy that root makes belongs to the owner of the database."""
    os.chown(path, 4242, 4243)
    await db.backup(copy)
    assert (copy.stat().st_uid, copy.stat().st_gid) == (4242, 4243)


async def test_an_older_copy_is_replaced(db: SQLiteDatabase, copy: Path) -> None:
    """It is replaced in one step: a program that has the older copy open still sees that one."""
    await db.backup(copy)
    before = copy.read_bytes()
    with copy.open("rb") as older:
        await ledger.post(db, random.Random(1))
        await db.backup(copy)
        assert older.read() == before
    assert entries(copy) == 1
    assert files_beside(copy) == {"copy.db"}


async def test_it_is_on_the_disk(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is synced piece by piece, so the disk never has much to do, and as a whole before it gets
    its name; the name is synced, too.
    """
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spied_fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            done.append("directory")
        else:
            done.append("file" if os.pread(descriptor, 2, 18) != b"\x01\x01" else "whole file")
        fsync(descriptor)

    def spied_replace(source: Any, target: Any) -> None:
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(os, "replace", spied_replace)
    monkeypatch.setattr(page_copy, "_SYNC_BYTES", 512 * KIB)
    async with db.write() as session:
        await session.execute(text("UPDATE accounts SET ballast = randomblob(160000)"))
    await db.backup(copy, pages_per_step=64)
    assert done[-3:] == ["whole file", "replace", "directory"]
    # All except the last 2 MiB, which SQLite writes at the end.
    assert (copy.stat().st_size - 3072 * KIB) // (512 * KIB) <= done[:-3].count("file")
    assert done.count("file") > 8


async def test_without_wal_it_hurries(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no pauses, because writers wait for its end."""
    rests: list[float] = []
    monkeypatch.setattr(page_copy.time, "sleep", rests.append)  # type: ignore[attr-defined]
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        await ledger.create(db)
        await db.backup(copy, pages_per_step=50)
    assert rests == []


async def test_a_step_rests(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pauses for as long as it took: writers need the processor and the disk, too."""
    rests: list[float] = []
    monkeypatch.setattr(page_copy.time, "sleep", rests.append)  # type: ignore[attr-defined]
    began = time.monotonic()
    await db.backup(copy, pages_per_step=50)
    assert len(rests) == -(-copy.stat().st_size // 4096 // 50)
    assert 0 < sum(rests) < time.monotonic() - began
    assert max(rests) <= 0.02


async def test_a_broken_disk(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is raised at once, and not waited for like a lock."""

    def broken(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("sa_sqlite_pool.backup.backup.begin_snapshot", broken)
    with pytest.raises(exc.OperationalError, match="disk I/O error"):
        await asyncio.wait_for(db.backup(copy), 10)


async def test_a_damaged_database(path: Path, copy: Path) -> None:
    """A damaged copy is not kept, and an older copy is."""
    async with SQLiteDatabase(path) as db:
        await ledger.create(db)
        await db.backup(copy)
    older = copy.read_bytes()
    damage(path)
    async with SQLiteDatabase(path) as db:
        with pytest.raises(exc.DatabaseError, match=r"older one is as it was") as error:
            await db.backup(copy)
        assert isinstance(error.value.orig, DamagedDatabaseError)
        assert "copy.db is damaged; PRAGMA integrity_check reports: ***" in str(error.value)
    assert files_beside(copy) == {"copy.db"}
    assert copy.read_bytes() == older


@pytest.mark.parametrize(
    ("column", "value", "afterwards"),
    [
        ("x", "NULL", "x NOT NULL"),
        ("x INTEGER", "5", "x VARCHAR"),
        ("x", "0", "x CHECK (x > 0)"),
    ],
)
async def test_values_that_the_schema_does_not_allow(
    path: Path, copy: Path, column: str, value: str, afterwards: str
) -> None:
    """They are no damage, and are copied and restored unchanged."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"CREATE TABLE t ({column})")
        connection.execute(f"INSERT INTO t VALUES {', '.join([f'({value})'] * 10)}")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_master SET sql = 'CREATE TABLE t ({afterwards})'")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() != ("ok",)
    async with SQLiteDatabase(path) as db:
        await db.backup(copy)
    await restore(copy, path.with_name("restored.db"))
    with closing(sqlite3.connect(path.with_name("restored.db"))) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)


async def test_a_database_in_memory(copy: Path) -> None:
    """An in-memory database is a file in a private directory, and is copied like any other."""
    async with SQLiteDatabase(":memory:") as db:
        await ledger.create(db)
        await ledger.post(db, random.Random(1))
        await db.backup(copy)
    assert entries(copy) == 1


async def test_an_empty_database(path: Path, copy: Path) -> None:
    """This includes a database without a single page."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        assert path.stat().st_size == 0
        await db.backup(copy)
    assert content(copy) == content(path)


async def test_a_read_only_database(db: SQLiteDatabase, path: Path, copy: Path) -> None:
    """A backup only reads."""
    url = f"sqlite+aiosqlite:///{path.as_uri()}?mode=ro&uri=true"
    async with SQLiteDatabase(url) as readers:
        await readers.backup(copy)
    assert entries(copy) == 0


async def test_wrong_arguments(db: SQLiteDatabase, copy: Path) -> None:
    """They are refused before anything is done."""
    for pages in (0, -1, True, "1", None):
        with pytest.raises(ConfigurationError, match="pages_per_step"):
            await db.backup(copy, pages_per_step=pages)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="progress must be a function"):
        await db.backup(copy, progress=1)  # type: ignore[arg-type]
    assert files_beside(copy) == set()


async def test_a_database_shared_in_memory(copy: Path) -> None:
    """It has no file to copy."""
    url = "sqlite+aiosqlite:///file:/ledger?vfs=memdb&uri=true"
    async with SQLiteDatabase(url) as db:
        with pytest.raises(
            ConfigurationError, match="is a shared in-memory database and cannot be copied"
        ):
            await db.backup(copy)


async def test_before_it_is_open_and_after(path: Path, copy: Path) -> None:
    """The call is refused, as all others are."""
    db = SQLiteDatabase(path)
    with pytest.raises(DatabaseClosedError):
        await db.backup(copy)
    await db.open()
    await db.close()
    with pytest.raises(DatabaseClosedError):
        await db.backup(copy)
