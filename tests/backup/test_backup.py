"""``db.backup()``: a consistent copy while others write."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import random
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool import (
    ConfigurationError,
    DamagedDatabaseError,
    DatabaseClosedError,
    ReadTimeout,
    SQLiteDatabase,
    TurnAlreadyHeldError,
    WalSettings,
    WriteTimeout,
)
from sa_sqlite_pool.backup import copying
from tests.backup import ledger
from tests.backup.held import Held
from tests.backup.ledger import PACKAGE_WRITER, PLAIN_WRITER, Writer, content, entries
from tests.helpers import files_beside, turn_of, until, until_waiting
from tests.wal.facade import said
from tests.wal.others import OtherProcess

ROLLBACK = {"journal_mode": "TRUNCATE"}
KIB = 1024


def damage(path: Path) -> None:
    """One page in the middle of a closed database."""
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * 4096)


async def test_it_is_the_same(db: SQLiteDatabase, path: Path, copy: Path) -> None:
    """All of the content, in one file, which needs no log."""
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
    """Tasks and other processes, with this package and without: every copy is a committed state,
    not older than the call.
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
    """The pages copied after each step of a backup, with a commit of somebody else in each."""
    seen: list[int] = []
    total = 0
    other = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    original = copying._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: copying.Step) -> None:
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

    monkeypatch.setattr(copying, "_copy", spied)
    with contextlib.closing(other):
        await db.backup(copy, pages_per_step=50)
    return seen, total


async def test_no_page_is_copied_twice(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much others write: each step goes on where the one before ended."""
    seen, total = await steps_beside_a_writer(db, path, copy, monkeypatch)
    assert total > 500
    assert seen == [*range(50, total, 50), total]


async def test_without_the_snapshot_it_would_never_end(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite begins anew after each commit of another connection."""
    monkeypatch.setattr("sa_sqlite_pool.backup.backup.begin_snapshot", lambda connection: None)
    with pytest.raises(exc.OperationalError, match="for ever"):
        await steps_beside_a_writer(db, path, copy, monkeypatch)


async def test_it_does_not_stop_writers(db: SQLiteDatabase, copy: Path) -> None:
    """In WAL mode they commit between any two steps, and the copy does not see that."""
    held, go_on = threading.Event(), threading.Event()
    await ledger.post(db, random.Random(1))
    original = copying.write_copy

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


# -- the log ----------------------------------------------------------------------------------


async def test_the_keeper_knows_of_it(
    path: Path, copy: Path, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a long read: named in the statistics, and at the hard limit in a warning. It goes on,
    and no reader waits for it in a gap. Afterwards the log shrinks.
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
        assert "declared long, so it goes on" in warning
        held.leave.set()
        await task
        assert db.statistics().wal.oldest_reader is None  # type: ignore[union-attr]
        assert (await db.checkpoint("truncate")).outcome.value == "truncated"
    assert entries(copy) == 0


async def test_it_waits_for_the_end_of_a_gap(db: SQLiteDatabase, copy: Path) -> None:
    """As every read transaction does."""
    keeper = db._keeper
    assert keeper is not None
    with keeper.snapshots.gap(30.0):
        task = asyncio.create_task(db.backup(copy))
        await until(lambda: keeper.snapshots._gap._waiting)  # type: ignore[union-attr]
        assert not copy.exists()
    await task
    assert entries(copy) == 0


# -- without a log ----------------------------------------------------------------------------


async def test_without_wal_writers_wait_in_line(path: Path, copy: Path, held: Held) -> None:
    """And not in SQLite's lock, where nobody would tell them why; readers go on."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK, write_timeout=0.05, idle_warning=0.01) as db:
        await ledger.create(db)
        task = asyncio.create_task(db.backup(copy), name="nightly")
        await until(held.inside.is_set)
        with pytest.raises(WriteTimeout, match=r"task 'nightly'.*last SQL: BACKUP app\.db TO"):
            await ledger.post(db, random.Random(1))
        async with db.read() as session:
            assert await session.scalar(text("SELECT n FROM counter")) == 0
        held.leave.set()
        await task
        await ledger.post(db, random.Random(1))
        assert turn_of(path).holder is None
    assert (entries(copy), entries(path)) == (0, 1)


async def _warned_of_another(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A transaction begins now and does nothing, until that is said."""
    async with SQLiteDatabase(path, idle_warning=0.02) as db, db.write() as session:
        await session.execute(text("SELECT 1"))
        await until(lambda: said(caplog))


async def test_without_wal_it_is_not_called_idle(
    path: Path, tmp_path: Path, copy: Path, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the turn and uses it."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        await ledger.create(db)
    async with SQLiteDatabase(path, pragmas=ROLLBACK, idle_warning=0.02) as db:
        with caplog.at_level(logging.WARNING):
            task = asyncio.create_task(db.backup(copy))
            await until(held.inside.is_set)
            await _warned_of_another(tmp_path / "other.db", caplog)
        held.leave.set()
        await task
    assert all("other.db" in message for message in said(caplog))


async def test_without_wal_in_a_write_transaction(path: Path, copy: Path) -> None:
    """The task would wait for itself."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        await ledger.create(db)
        async with db.write() as session:
            await session.execute(text(ledger.COUNT))
            with pytest.raises(TurnAlreadyHeldError):
                await db.backup(copy)
        assert files_beside(copy) == set()


async def test_another_program_has_the_file_locked(path: Path, copy: Path) -> None:
    """It is waited for, as by a reader."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK, read_timeout=0.05) as db:
        await ledger.create(db)
        with OtherProcess(path) as other:
            assert other.execute("BEGIN EXCLUSIVE") == "[]"
            with pytest.raises(ReadTimeout, match=r"waited 0\.05 s to read from app\.db"):
                await db.backup(copy)
            assert files_beside(copy) == set()
            task = asyncio.create_task(db.backup(copy))
            await until_waiting(0, turn_of(path))
            assert other.execute("COMMIT") == "[]"
        await task
    assert entries(copy) == 0


# -- progress ---------------------------------------------------------------------------------


whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")


async def test_progress(db: SQLiteDatabase, copy: Path) -> None:
    """In the loop, more and more, and the whole at the end; in the context of the caller."""
    calls: list[tuple[int, int]] = []
    loop = asyncio.get_running_loop()
    whose.set("caller's")

    def progress(copied: int, total: int) -> None:
        assert whose.get() == "caller's"
        assert asyncio.get_running_loop() is loop
        calls.append((copied, total))

    await db.backup(copy, progress=progress, pages_per_step=100)
    totals = {total for _, total in calls}
    assert totals == {copy.stat().st_size // 4096}
    assert [copied for copied, _ in calls] == sorted({copied for copied, _ in calls})
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > 1


async def test_progress_may_be_print(
    db: SQLiteDatabase, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the documentation shows it."""
    await db.backup(copy, progress=print)
    pages = copy.stat().st_size // 4096
    assert capsys.readouterr().out.splitlines()[-1] == f"{pages} {pages}"


async def test_progress_does_not_pile_up(db: SQLiteDatabase, copy: Path) -> None:
    """A loop that is busy is told the latest, once."""
    calls: list[int] = []
    inside = threading.Event()
    original = copying._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: copying.Step) -> None:
        original(source, target, pages, worker, step)
        inside.set()

    def progress(copied: int, total: int) -> None:
        calls.append(copied)
        assert inside.wait(30)  # the loop stands still until all steps are done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_copy", spied)
        await db.backup(copy, progress=progress, pages_per_step=1)
    assert len(calls) == 2
    assert calls[-1] == copy.stat().st_size // 4096


@pytest.mark.parametrize("at", ["first", "last"])
async def test_progress_raises(db: SQLiteDatabase, copy: Path, at: str) -> None:
    """The backup ends, the caller gets the error itself, and nothing is left."""
    error = OSError("the pipe is broken")

    def progress(copied: int, total: int) -> None:
        if at == "first" or copied == total:
            raise error

    await db.backup(copy)
    older = copy.read_bytes()
    await ledger.post(db, random.Random(1))
    with pytest.raises(OSError, match="the pipe is broken") as raised:
        await db.backup(copy, progress=progress, pages_per_step=20)
    assert raised.value is error
    assert files_beside(copy) == {"copy.db"}
    assert copy.read_bytes() == older
    assert len(db._keeper.snapshots) == 0  # type: ignore[union-attr]


async def test_progress_raises_once(db: SQLiteDatabase, copy: Path) -> None:
    """It is not called again, although the next step may be over already."""
    calls: list[int] = []
    raised = threading.Event()
    original = copying._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: copying.Step) -> None:
        def each(copied: int, total: int) -> None:
            step(copied, total)
            assert raised.wait(30)
            step(copied + 1, total)

        original(source, target, pages, worker, each)

    def progress(copied: int, total: int) -> None:
        calls.append(copied)
        raised.set()
        raise ValueError(copied)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_copy", spied)
        with pytest.raises(ValueError, match="20"):
            await db.backup(copy, progress=progress, pages_per_step=20)
    assert calls == [20]


# -- the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
async def test_permissions(db: SQLiteDatabase, path: Path, copy: Path, mode: int) -> None:
    """Who may read the database may read its copy, from the first byte on; nobody else."""
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
    """A copy that root makes is its database's owner's."""
    os.chown(path, 4242, 4243)
    await db.backup(copy)
    assert (copy.stat().st_uid, copy.stat().st_gid) == (4242, 4243)


async def test_an_older_copy_is_replaced(db: SQLiteDatabase, copy: Path) -> None:
    """In one step: who has the older one open goes on to see it as it was."""
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
    """Piece by piece, so that the disk never has much to do; whole before it gets its name; and
    its name, too.
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
    monkeypatch.setattr(copying, "_SYNC_BYTES", 512 * KIB)
    async with db.write() as session:
        await session.execute(text("UPDATE accounts SET ballast = randomblob(160000)"))
    await db.backup(copy, pages_per_step=64)
    assert done[-3:] == ["whole file", "replace", "directory"]
    # All but the last 2 MiB, which SQLite writes at the end.
    assert (copy.stat().st_size - 3072 * KIB) // (512 * KIB) <= done[:-3].count("file")
    assert done.count("file") > 8


async def test_without_wal_it_hurries(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since writers wait for its end."""
    rests: list[float] = []
    monkeypatch.setattr(copying.time, "sleep", rests.append)  # type: ignore[attr-defined]
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        await ledger.create(db)
        await db.backup(copy, pages_per_step=50)
    assert rests == []


async def test_a_step_rests(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it has taken: writers need the processor and the disk, too."""
    rests: list[float] = []
    monkeypatch.setattr(copying.time, "sleep", rests.append)  # type: ignore[attr-defined]
    began = time.monotonic()
    await db.backup(copy, pages_per_step=50)
    assert len(rests) == -(-copy.stat().st_size // 4096 // 50)
    assert 0 < sum(rests) < time.monotonic() - began
    assert max(rests) <= 0.02


async def test_a_broken_disk(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not waited for as a lock is."""

    def broken(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("sa_sqlite_pool.backup.backup.begin_snapshot", broken)
    with pytest.raises(exc.OperationalError, match="disk I/O error"):
        await asyncio.wait_for(db.backup(copy), 10)


async def test_a_damaged_database(path: Path, copy: Path) -> None:
    """Its copy is damaged, too, is not kept, and an older one is."""
    async with SQLiteDatabase(path) as db:
        await ledger.create(db)
        await db.backup(copy)
    older = copy.read_bytes()
    damage(path)
    async with SQLiteDatabase(path) as db:
        with pytest.raises(exc.DatabaseError, match=r"older one is as it was") as error:
            await db.backup(copy)
        assert isinstance(error.value.orig, DamagedDatabaseError)
        assert "copy.db is damaged, PRAGMA integrity_check says: ***" in str(error.value)
    assert files_beside(copy) == {"copy.db"}
    assert copy.read_bytes() == older


async def test_a_database_in_memory(copy: Path) -> None:
    """Is one in a private directory."""
    async with SQLiteDatabase(":memory:") as db:
        await ledger.create(db)
        await ledger.post(db, random.Random(1))
        await db.backup(copy)
    assert entries(copy) == 1


async def test_an_empty_database(path: Path, copy: Path) -> None:
    """Also one without a single page."""
    async with SQLiteDatabase(path, pragmas=ROLLBACK) as db:
        assert path.stat().st_size == 0
        await db.backup(copy)
    assert content(copy) == content(path)


async def test_a_read_only_database(db: SQLiteDatabase, path: Path, copy: Path) -> None:
    """Reading is all that a backup does."""
    url = f"sqlite+aiosqlite:///{path.as_uri()}?mode=ro&uri=true"
    async with SQLiteDatabase(url) as readers:
        await readers.backup(copy)
    assert entries(copy) == 0


# -- arguments --------------------------------------------------------------------------------


async def test_wrong_arguments(db: SQLiteDatabase, copy: Path) -> None:
    """Before anything is done."""
    for pages in (0, -1, True, "1", None):
        with pytest.raises(ConfigurationError, match="pages_per_step"):
            await db.backup(copy, pages_per_step=pages)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="progress must be a function"):
        await db.backup(copy, progress=1)  # type: ignore[arg-type]
    assert files_beside(copy) == set()


async def test_a_database_shared_in_memory(copy: Path) -> None:
    """Has no file to be copied."""
    url = "sqlite+aiosqlite:///file:/ledger?vfs=memdb&uri=true"
    async with SQLiteDatabase(url) as db:
        with pytest.raises(ConfigurationError, match="is shared in memory and cannot be copied"):
            await db.backup(copy)


async def test_before_it_is_open_and_after(path: Path, copy: Path) -> None:
    """As everything else."""
    db = SQLiteDatabase(path)
    with pytest.raises(DatabaseClosedError):
        await db.backup(copy)
    await db.open()
    await db.close()
    with pytest.raises(DatabaseClosedError):
        await db.backup(copy)
