"""A checkpoint in two parts, with a wait for the disk between them."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from sa_sqlite_pool.files import descriptors, log_file
from sa_sqlite_pool.stats.log import CheckpointMode, CheckpointOutcome
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer
from tests.helpers import until
from tests.wal.checkpointing import Database, open_checkpointer

PASSIVE, FULL, RESTART, TRUNCATE = CheckpointMode


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the files that Python has synced; SQLite's own syncs do not count."""
    names: list[str] = []

    def fsync(descriptor: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


async def test_what_comes_after_is_not_moved(
    database: Database, checkpointer: Checkpointer
) -> None:
    """So SQLite need not wait for the disk; the log cannot restart, but it can afterwards."""
    await checkpointer.begin_snapshot()
    held = database.log
    database.add()
    part = await checkpointer.run(PASSIVE)
    assert part.outcome is CheckpointOutcome.HELD_BACK
    assert part.moved == held.frames < part.frames
    database.add()
    assert database.log.salts == held.salts
    await checkpointer.end_snapshot_and_sync()
    whole = await checkpointer.run(PASSIVE)
    assert whole.outcome is CheckpointOutcome.MOVED_ALL
    database.add()
    assert database.log.salts != held.salts
    assert database.rows == 103


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="open files are not listed here")
async def test_the_disk_is_waited_for_outside(
    database: Database, checkpointer: Checkpointer, synced: list[str]
) -> None:
    """The log is synced before anything is moved from it, the database before the rest is."""
    await checkpointer.begin_snapshot()
    assert synced == ["app.db-wal"]
    await checkpointer.run(PASSIVE)
    assert synced == ["app.db-wal"]
    await checkpointer.end_snapshot_and_sync()
    assert synced == ["app.db-wal", "app.db", "app.db-wal"]


async def test_no_file_of_the_database_is_opened(
    database: Database, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing it would drop SQLite's locks, on which other transactions depend."""
    opened: list[str] = []
    original = os.open

    def noting(path: str, *flags: int) -> int:
        opened.append(Path(path).name)
        return original(path, *flags)

    monkeypatch.setattr(os, "open", noting)
    await checkpointer.begin_snapshot()
    await checkpointer.end_snapshot_and_sync()
    assert opened == ["app.db-wal"] * 2


def test_files_that_are_gone(tmp_path: Path) -> None:
    """Nothing is synced, and nothing fails."""
    log_file.sync_file(str(tmp_path / "gone-wal"))
    log_file.sync_open_file(str(tmp_path / "gone"))


def test_where_open_files_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    """Only the next checkpoint waits for the disk."""
    monkeypatch.setattr(descriptors, "_DIRECTORIES", {sys.platform: str(tmp_path / "proc")})
    log_file.sync_open_file(str(tmp_path / "app.db"))
    assert synced == []


@pytest.mark.parametrize("way", ["close", "give_up", "close_before_fork", "end_snapshot"])
async def test_every_end_lets_go(path: Path, database: Database, way: str) -> None:
    """No snapshot is left behind, however it ends."""
    checkpointer = await open_checkpointer(path)
    await checkpointer.begin_snapshot()
    database.add()
    result = getattr(checkpointer, way)()
    if result is not None:
        await result

    def moved_all() -> bool:
        _, frames, moved = database.other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(frames == moved)

    await until(moved_all)
    await checkpointer.close()


async def test_holding_twice_holds_once(database: Database, checkpointer: Checkpointer) -> None:
    """The first snapshot is not forgotten."""
    await checkpointer.begin_snapshot()
    database.add()
    await checkpointer.begin_snapshot()
    await checkpointer.end_snapshot_and_sync()
    assert (await checkpointer.run(PASSIVE)).outcome is CheckpointOutcome.MOVED_ALL


async def test_a_cancelled_hold(database: Database, checkpointer: Checkpointer) -> None:
    """Whether it was interrupted or not, nothing of it is left afterwards."""
    job = checkpointer.begin_snapshot()
    job.cancel()
    await until(lambda: job.over)
    await checkpointer.close()
    with sqlite3.connect(database.path) as connection:
        database.add()
        busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    connection.close()
    assert (busy, frames) == (0, moved)
