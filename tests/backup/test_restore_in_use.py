"""A restore over a database that is in use."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, text

from sa_sqlite_pool import (
    SQLiteDatabase,
    restore,
)
from sa_sqlite_pool.transactions import locks
from tests.backup import ledger
from tests.backup.held import Held
from tests.backup.ledger import entries
from tests.backup.restoring import MODES, ON_LINUX, backup, make, names, refused
from tests.helpers import until
from tests.wal.others import OtherProcess

__all__ = ["backup"]


@ON_LINUX
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "doing",
    [["SELECT count(*) FROM old"], ["BEGIN", "SELECT * FROM old LIMIT 1"], ["BEGIN IMMEDIATE"]],
    ids=["idle", "reading", "writing"],
)
async def test_another_process(path: Path, backup: Path, mode: str, doing: list[str]) -> None:
    """It is named and not disturbed, and nothing is changed."""
    make(path, mode)
    with OtherProcess(path) as other:
        for statement in doing:
            other.execute(statement)
        before = other.execute("SELECT count(*) FROM old")
        name = other.name.replace("(", r"\(").replace(")", r"\)")
        await refused(backup, path, f"app.db is in use by {name}; close it there")
        assert other.execute("SELECT count(*) FROM old") == before == "[(500,)]"
        other.execute("ROLLBACK")
        assert other.execute("DELETE FROM old WHERE id = 1") == "[]"
        assert other.execute("SELECT count(*) FROM old") == "[(499,)]"
    await restore(backup, path)
    assert entries(path) == 3


@pytest.mark.parametrize(
    ("mode", "doing"),
    [
        ("WAL", ["SELECT count(*) FROM old"]),
        ("DELETE", ["BEGIN", "SELECT * FROM old LIMIT 1"]),
        ("DELETE", ["BEGIN IMMEDIATE"]),
    ],
)
async def test_where_the_system_does_not_tell(
    path: Path, backup: Path, mode: str, doing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks show the use: any connection in WAL mode, any transaction in other modes."""
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.users", lambda path: [])
    make(path, mode)
    with OtherProcess(path) as other:
        for statement in doing:
            other.execute(statement)
        await refused(
            backup, path, "app.db is in use by another connection, which holds a lock on it"
        )
        assert other.execute("SELECT count(*) FROM old") == "[(500,)]"
    await restore(backup, path)
    assert entries(path) == 3


@pytest.mark.parametrize("pragmas", [{}, {"journal_mode": "DELETE"}], ids=["wal", "delete"])
@ON_LINUX
async def test_this_process(path: Path, backup: Path, pragmas: dict[str, Any]) -> None:
    """An open ``SQLiteDatabase`` is not disturbed; once it is closed, the restore works."""
    async with SQLiteDatabase(path, pragmas=pragmas) as db:
        await ledger.create(db, 100)
        await refused(backup, path, "app.db is in use by this process")
        await ledger.post(db, random.Random(1))
    assert entries(path) == 1
    await restore(backup, path)
    assert entries(path) == 3


@ON_LINUX
async def test_another_library(path: Path, backup: Path) -> None:
    """An idle connection of a program without this package is noticed."""
    make(path, "DELETE")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM old"))
        connection.rollback()
        await refused(backup, path, "app.db is in use by this process")
    engine.dispose()
    await restore(backup, path)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list with an entry for each pause between two tries for a foreign lock."""
    made: list[None] = []
    original = locks.pause

    async def pause() -> None:
        made.append(None)
        await original()

    monkeypatch.setattr(locks, "pause", pause)
    return made


async def test_a_moment_is_waited(path: Path, backup: Path, pauses: list[None]) -> None:
    """It waits for a process that is about to close, for half a second at most."""
    make(path)
    loop = asyncio.get_running_loop()
    with OtherProcess(path) as other:
        other.execute("SELECT * FROM old LIMIT 1")
        began = loop.time()
        await refused(backup, path, "in use")
        assert 0.4 < loop.time() - began < 30
        pauses.clear()
        task = asyncio.create_task(restore(backup, path))
        await until(lambda: pauses)
        other.end()
        await task
    assert entries(path) == 3


async def test_somebody_opens_it_in_the_middle(
    path: Path, backup: Path, held: Held, pauses: list[None]
) -> None:
    """It waits, or is refused, until the restore is done, and then sees the backup."""
    make(path)
    task = asyncio.create_task(restore(backup, path))
    await until(held.inside.is_set)
    with OtherProcess(path) as other:
        assert other.execute("PRAGMA busy_timeout = 0") == "[(0,)]"
        assert other.execute("SELECT count(*) FROM old") == "database is locked"
        assert other.execute("BEGIN IMMEDIATE") == "database is locked"
        assert other.execute("PRAGMA journal_mode = WAL") == "database is locked"
        db = SQLiteDatabase(path)
        opening = asyncio.create_task(db.open())
        await until(lambda: pauses)
        assert not opening.done()
        held.leave.set()
        await task
        await opening
        await ledger.post(db, random.Random(9))
        assert other.execute("SELECT n FROM counter") == "[(4,)]"
        await db.close()
    assert entries(path) == 4


async def test_somebody_makes_it_in_the_middle(path: Path, backup: Path, held: Held) -> None:
    """If there was no database, the one created meanwhile stays."""
    task = asyncio.create_task(restore(backup, path))
    await until(held.inside.is_set)
    with OtherProcess(path) as other:
        other.execute("CREATE TABLE theirs (id)")
        held.leave.set()
        with pytest.raises(exc.OperationalError, match=r"app\.db is in use by"):
            await task
        assert other.execute("SELECT count(*) FROM theirs") == "[(0,)]"
    assert names(path) == {"app.db"}
