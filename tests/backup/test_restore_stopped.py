"""A restore that does not finish, and one that finishes durably."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from sa_sqlite_pool import (
    DatabaseInUseError,
    SQLiteDatabase,
    restore,
)
from sa_sqlite_pool.backup import page_copy
from tests.backup import ledger
from tests.backup.held import Held
from tests.backup.ledger import content, entries, run_program
from tests.backup.restoring import (
    MODES,
    Unchanged,
    backup,
    break_header,
    header_versions,
    make,
    names,
    refused,
)
from tests.helpers import cancelled_after, until

__all__ = ["backup"]


@pytest.mark.parametrize("target", ["WAL", "DELETE", "damaged", "none"])
@pytest.mark.parametrize("times", [1, 1000])
async def test_a_cancelled_one(path: Path, backup: Path, target: str, times: int) -> None:
    """At every await, the result is the old database, or the backup, and nothing else."""
    threads = threading.active_count()
    cancelled = 0
    for steps in range(0, 300, 7):
        for name in names(path):
            path.with_name(name).unlink()
        if target != "none":
            make(path, "DELETE" if target == "damaged" else target, rows=50)
        if target == "damaged":
            break_header(path)
        before = path.read_bytes() if path.exists() else None
        cancelled += await cancelled_after(restore(backup, path), steps, times)
        await until(lambda: threading.active_count() <= threads)
        assert names(path) <= {"app.db", "app.db.damaged"}
        after = path.read_bytes() if path.exists() else None
        if before is None or target == "damaged":
            assert after in {before, backup.read_bytes()}
        elif "CREATE TABLE entries" in "".join(content(path)):
            assert entries(path) == 3
        else:
            assert len(content(path)) == 50 + 3
            assert times > 1 or header_versions(path) == before[18:20]
    assert cancelled


KILLED = """
import asyncio, os, signal, sys
from sa_sqlite_pool import restore
from sa_sqlite_pool.backup import page_copy

original = page_copy._copy

def killing(source, target, pages, worker, step):
    def each(copied, total):
        step(copied, total)
        if copied >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    original(source, target, 20, worker, each)

page_copy._copy = killing
asyncio.run(restore(*sys.argv[1:3]))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL here")
@pytest.mark.parametrize("target", ["WAL", "DELETE", "none"])
@pytest.mark.parametrize("pages", [0, 600])
async def test_a_kill(path: Path, tmp_path: Path, copy: Path, target: str, pages: int) -> None:
    """After a kill half way, the next process that opens the database finds it unchanged."""
    async with SQLiteDatabase(tmp_path / "origin.db") as db:
        await ledger.create(db, 8000)  # more than SQLite's cache: old pages are overwritten
        await db.backup(copy)
    (tmp_path / "origin.db").unlink()
    if target != "none":
        make(path, target, rows=2000)
    before = content(path) if target != "none" else None
    done = run_program(KILLED, copy, path, pages)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if before is None:
        assert names(path) == {"app.db.unfinished"}
    else:
        assert names(path) == {"app.db", "app.db-journal"}
        assert content(path) == before
        assert names(path) - {"app.db-journal"} == {"app.db"}  # which is empty, or was never used
    await restore(copy, path)
    assert entries(path) == 0
    assert names(path) == {"app.db"}


FULL_DISK = """
import asyncio, resource, sys
import sqlalchemy.exc
from sa_sqlite_pool import restore

resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, resource.RLIM_INFINITY))
try:
    asyncio.run(restore(*sys.argv[1:]))
except sqlalchemy.exc.OperationalError as error:
    print(type(error.orig).__name__, error.orig, "|", error.detail[0])
"""


@pytest.mark.parametrize("mode", [*MODES[:2], "none"])
async def test_no_room(path: Path, backup: Path, mode: str) -> None:
    """An error is raised, and the database is as it was."""
    pytest.importorskip("resource", reason="there are no limits for files here")
    if mode != "none":
        make(path, mode, rows=100)
    said = "OperationalError disk I/O error | app.db is as it was\n"
    if mode == "none":
        assert run_program(FULL_DISK, backup, path).stdout == said
        assert names(path) == set()
    else:
        with Unchanged(path):
            assert run_program(FULL_DISK, backup, path).stdout == said
    await restore(backup, path)
    assert entries(path) == 3


async def test_a_broken_disk(path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is not taken for a database in use."""

    def broken(connection: sqlite3.Connection) -> str:
        raise sqlite3.OperationalError("disk I/O error")

    make(path)
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.take_alone", broken)
    await refused(backup, path, "disk I/O error.*", sqlite3.OperationalError)
    with pytest.raises(exc.OperationalError) as raised:
        await restore(backup, path)
    assert not isinstance(raised.value.orig, DatabaseInUseError)


async def test_it_is_on_the_disk(path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is synced first, then the database, and then the end of the journal."""
    made: list[Any] = []
    original = page_copy._copy

    def spied(source: Any, target: Any, *rest: Any) -> None:
        made.append(target.execute("PRAGMA synchronous").fetchone()[0])
        made.append(target.execute("PRAGMA journal_mode").fetchone()[0])
        original(source, target, *rest)

    make(path)
    monkeypatch.setattr(page_copy, "_copy", spied)
    await restore(backup, path)
    assert made == [3, "delete"]  # EXTRA


async def test_two_at_once(path: Path, backup: Path, held: Held) -> None:
    """The second one is refused because of the first."""
    make(path)
    with ExitStack() as stack:
        stack.callback(held.leave.set)
        task = asyncio.create_task(restore(backup, path))
        await until(held.inside.is_set)
        await refused(backup, path, "is in use by")
    await task
    assert entries(path) == 3
