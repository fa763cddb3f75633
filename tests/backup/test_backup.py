"""``db.backup()``: a consistent copy while other tasks and processes write."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool import (
    SQLiteDatabase,
    WalSettings,
)
from sa_sqlite_pool.backup import page_copy
from tests.backup import ledger
from tests.backup.held import ROLLBACK, Held
from tests.backup.ledger import PACKAGE_WRITER, PLAIN_WRITER, Writer, content, entries
from tests.helpers import files_beside, until
from tests.wal.facade import said

KIB = 1024


async def test_it_is_the_same(db: SQLiteDatabase, path: Path, copy: Path) -> None:
    """The copy has the whole content in one file, which needs no log."""
    for seed in range(20):
        await ledger.post(db, random.Random(seed))
    await db.backup(copy)
    assert files_beside(copy) == {"copy.db"}
    assert entries(copy) == 20
    assert content(copy) == content(path)
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert files_beside(copy) == {"copy.db"}


@pytest.mark.parametrize("pragmas", [{}, ROLLBACK], ids=["wal", "truncate"])
async def test_while_everybody_writes(path: Path, copy: Path, pragmas: dict[str, Any]) -> None:
    """While tasks and other processes write, with and without this package, every copy is a
    committed state that is not older than the call.
    """
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - to run it again
    posted, over, counts = 0, False, []
    async with SQLiteDatabase(path, pragmas=pragmas) as db:
        await ledger.create(db)

        async def write(generator: random.Random) -> None:
            nonlocal posted
            while not over:
                await ledger.post(db, generator)
                posted += 1

        programs = [PLAIN_WRITER] if pragmas else [PLAIN_WRITER, PACKAGE_WRITER]
        with contextlib.ExitStack() as stack:
            others = [stack.enter_context(Writer(path, p, seed)) for p in programs]
            tasks = [asyncio.create_task(write(random.Random(seed + n))) for n in range(4)]
            for _ in range(4):
                before = posted
                await until(lambda: posted > before)  # noqa: B023
                before = posted
                await db.backup(copy, pages_per_step=50)
                counts.append(entries(copy))
                assert counts[-1] >= before
            over = True
            await asyncio.gather(*tasks)
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)
    assert all(other.done for other in others)
    assert entries(path) == posted + sum(other.done for other in others)


async def steps_beside_a_writer(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], int]:
    """Return the pages copied after each step of a backup; another connection commits in each."""
    seen: list[int] = []
    total = 0
    other = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    original = page_copy._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: page_copy.Step) -> None:
        def each(copied: int, pages_total: int) -> None:
            nonlocal total
            total = pages_total
            seen.append(copied)
            if len(seen) < 100:
                other.execute(ledger.COUNT)
            else:
                raise sqlite3.OperationalError("it goes on for ever")
            step(copied, pages_total)

        original(source, target, pages, worker, each)

    monkeypatch.setattr(page_copy, "_copy", spied)
    with contextlib.closing(other):
        await db.backup(copy, pages_per_step=50)
    return seen, total


async def test_no_page_is_copied_twice(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much others write, each step continues where the previous one ended."""
    seen, total = await steps_beside_a_writer(db, path, copy, monkeypatch)
    assert total > 500
    assert seen == [*range(50, total, 50), total]


async def test_without_the_snapshot_it_would_never_end(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite starts the copy over after each commit of another connection."""
    monkeypatch.setattr("sa_sqlite_pool.backup.backup.begin_snapshot", lambda connection: None)
    with pytest.raises(exc.OperationalError, match="for ever"):
        await steps_beside_a_writer(db, path, copy, monkeypatch)


async def test_it_does_not_stop_writers(db: SQLiteDatabase, copy: Path) -> None:
    """In WAL mode, writers commit between any two steps, and the copy does not see that."""
    held, go_on = threading.Event(), threading.Event()
    await ledger.post(db, random.Random(1))
    original = page_copy.write_copy

    def waiting(*arguments: Any, **options: Any) -> None:
        held.set()
        assert go_on.wait(30)
        original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sa_sqlite_pool.backup.backup.write_copy", waiting)
        task = asyncio.create_task(db.backup(copy), name="nightly")
        await until(held.is_set)
        for seed in range(3):
            await ledger.post(db, random.Random(seed))
        go_on.set()
        await task
    assert entries(copy) == 1


async def test_the_keeper_knows_of_it(
    path: Path, copy: Path, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """It is treated as a long read: statistics name it, and so does a warning at the hard limit. It
    continues, no reader waits for it in a gap, and the log shrinks afterwards.
    """
    limits = WalSettings(64 * KIB, 256 * KIB, reader_gap=30.0, max_snapshot_age=0.0)
    async with SQLiteDatabase(path, wal=limits) as db:
        await ledger.create(db, 200)
        assert (await db.checkpoint("truncate")).outcome.value == "truncated"
        task = asyncio.create_task(db.backup(copy), name="nightly")
        await until(held.inside.is_set)
        wal = db.statistics().wal
        assert wal is not None
        assert wal.oldest_reader is not None
        assert wal.oldest_reader.long
        assert "task 'nightly'" in wal.oldest_reader.who
        assert f"BACKUP app.db TO {copy}" in wal.oldest_reader.who
        for _ in range(100):
            if warnings := [one for one in said(caplog) if "'nightly'" in one]:
                break
            async with db.write() as session:
                await session.execute(text("UPDATE accounts SET ballast = randomblob(4000)"))
            async with db.read() as session:
                await session.execute(text("SELECT 1"))
        (warning,) = warnings
        assert "task 'nightly'" in warning
        assert f"BACKUP app.db TO {copy}" in warning
        assert "declared long, so it continues" in warning
        held.leave.set()
        await task
        assert db.statistics().wal.oldest_reader is None  # type: ignore[union-attr]
        assert (await db.checkpoint("truncate")).outcome.value == "truncated"
    assert entries(copy) == 0


async def test_it_waits_for_the_end_of_a_gap(db: SQLiteDatabase, copy: Path) -> None:
    """It waits as every read transaction does."""
    keeper = db._keeper
    assert keeper is not None
    with keeper.snapshots.gap(30.0):
        task = asyncio.create_task(db.backup(copy))
        await until(lambda: keeper.snapshots._gap._waiting)  # type: ignore[union-attr]
        assert not copy.exists()
    await task
    assert entries(copy) == 0
