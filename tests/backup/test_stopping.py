"""A backup that does not finish: cancelled, closed, killed, forked, or out of space."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.backup import page_copy
from sa_sqlite_pool.backup.copy_job import connected
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.system.atomic_file import AtomicFile
from tests.backup import ledger
from tests.backup.held import ROLLBACK, Held
from tests.backup.ledger import entries
from tests.helpers import cancelled_after, files_beside, turn_of, until


def nothing_is_left(db: SQLiteDatabase, path: Path, copy: Path) -> None:
    """Check that no file, snapshot, turn or thread is left."""
    assert files_beside(copy) == {"copy.db"}
    if db._keeper is not None:
        assert len(db._keeper.snapshots) == 0
    assert turn_of(path).holder is None
    assert not db._backups._running


@pytest.mark.parametrize("pragmas", [{}, ROLLBACK], ids=["wal", "truncate"])
@pytest.mark.parametrize("times", [1, 1000])
async def test_a_cancelled_one_leaves_nothing(
    path: Path, copy: Path, pragmas: dict[str, Any], times: int
) -> None:
    """At every await, once or repeatedly, an older copy is unchanged, or replaced as a whole."""
    async with SQLiteDatabase(path, pragmas=pragmas) as db:
        await ledger.create(db, 200)
        await db.backup(copy)
        threads = threading.active_count()
        cancelled = 0
        for steps in range(0, 400, 7):
            backup = db.backup(copy, progress=int.__add__, pages_per_step=10)
            cancelled += await cancelled_after(backup, steps, times)
            await until(lambda: turn_of(path).holder is None)
            if times == 1:
                nothing_is_left(db, path, copy)
            assert entries(copy) == 0
        assert cancelled
        await until(lambda: threading.active_count() <= threads)
        await until(lambda: files_beside(copy) == {"copy.db"})
        nothing_is_left(db, path, copy)
        await ledger.post(db, random.Random(1))
        await db.backup(copy)
    assert entries(copy) == 1


async def test_it_stops_between_steps(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops at the next step, not at the end."""
    await db.backup(copy)
    steps: list[int] = []
    cancelled = threading.Event()
    original = page_copy._copy

    def spied(source: Any, target: Any, pages: int, worker: Any, step: page_copy.Step) -> None:
        def each(copied: int, total: int) -> None:
            steps.append(copied)
            step(copied, total)
            assert cancelled.wait(10)

        original(source, target, pages, worker, each)

    def progress(copied: int, total: int) -> None:
        task.cancel()
        cancelled.set()

    monkeypatch.setattr(page_copy, "_copy", spied)
    task = asyncio.create_task(db.backup(copy, progress=progress, pages_per_step=3))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == [3]
    nothing_is_left(db, path, copy)


async def test_the_verification_is_interrupted(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long check does not delay the cancellation."""
    began = threading.Event()

    def endless(connection: Any, name: str) -> None:
        began.set()
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        ).fetchone()

    await db.backup(copy)
    monkeypatch.setattr("sa_sqlite_pool.backup.copy_job.check_integrity", endless)
    task = asyncio.create_task(db.backup(copy))
    await until(began.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    nothing_is_left(db, path, copy)


async def test_the_end_is_awaited(
    db: SQLiteDatabase, path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a COMMIT is: a copy that is about to get its name gets it."""
    await db.backup(copy)
    inside, leave = threading.Event(), threading.Event()
    original = AtomicFile.replace

    def slow(self: AtomicFile) -> None:
        inside.set()
        assert leave.wait(30)
        original(self)

    monkeypatch.setattr(AtomicFile, "replace", slow)
    await ledger.post(db, random.Random(1))
    task = asyncio.create_task(db.backup(copy))
    await until(inside.is_set)
    task.cancel()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert entries(copy) == 1
    nothing_is_left(db, path, copy)


async def test_between_copy_and_verification(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file exists, but no job runs in a thread."""

    async def cancelled(*arguments: object) -> None:
        assert files_beside(copy) == {"copy.db.unfinished"}
        raise asyncio.CancelledError

    monkeypatch.setattr("sa_sqlite_pool.backup.backup.check_copy", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await db.backup(copy)
    assert files_beside(copy) == set()


@pytest.mark.parametrize("pragmas", [{}, ROLLBACK], ids=["wal", "truncate"])
async def test_close_ends_it(path: Path, copy: Path, held: Held, pragmas: dict[str, Any]) -> None:
    """After the time-out, it raises an error that says so, and nothing is left."""
    db = SQLiteDatabase(path, pragmas=pragmas)
    await db.open()
    await ledger.create(db)
    task = asyncio.create_task(db.backup(copy))
    await until(held.inside.is_set)
    await asyncio.wait_for(db.close(0.01), 10)
    with pytest.raises(DatabaseClosedError, match=r"app\.db is being closed"):
        await task
    assert files_beside(copy) == set()
    assert not files_beside(path) & {"app.db-wal", "app.db-shm"}


async def test_close_gives_it_time(path: Path, copy: Path, held: Held) -> None:
    """It has the same time as every other operation."""
    db = SQLiteDatabase(path)
    await db.open()
    await ledger.create(db)
    task = asyncio.create_task(db.backup(copy))
    await until(held.inside.is_set)
    closing = asyncio.create_task(db.close(60))
    await until(lambda: "closing" in repr(db))
    held.leave.set()
    await asyncio.gather(task, closing)
    assert entries(copy) == 0
    assert files_beside(path) == {"app.db", "backups"}


async def test_close_in_another_loop(path: Path, copy: Path, held: Held) -> None:
    """A backup is stopped in the loop in which it runs."""
    db = SQLiteDatabase(path)
    await db.open()
    await ledger.create(db)
    errors: list[BaseException] = []

    async def back_up() -> None:
        try:
            await db.backup(copy)
        except DatabaseClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(back_up()))
    thread.start()
    await until(held.inside.is_set)
    await asyncio.wait_for(db.close(0.01), 10)
    await asyncio.to_thread(thread.join)
    assert len(errors) == 1
    assert files_beside(copy) == set()


def abandoned(main: Coroutine[Any, Any, None], inside: Callable[[], object]) -> None:
    """Run ``main`` in a loop that is closed once ``inside`` returns true."""

    async def begin() -> None:
        task = asyncio.get_running_loop().create_task(main)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        await until(inside)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()


async def first_backup(db: SQLiteDatabase, copy: Path) -> None:
    await db.open()
    await ledger.create(db)
    await db.backup(copy)


def until_ended(before: list[threading.Thread]) -> None:
    """Wait, outside any loop, until only the threads of ``before`` run."""
    for thread in set(threading.enumerate()) - set(before):
        thread.join(10)
        assert not thread.is_alive()


def test_its_loop_dies(path: Path, copy: Path, held: Held) -> None:
    """Its thread ends, nothing is left, and the next loop works."""
    db = SQLiteDatabase(path)

    threads = threading.enumerate()
    abandoned(first_backup(db, copy), held.inside.is_set)

    async def go_on() -> None:
        await until(lambda: files_beside(copy) == set())
        await until(lambda: not len(db._keeper.snapshots))  # type: ignore[union-attr]
        held.leave.set()
        await db.backup(copy)
        await asyncio.wait_for(db.close(60), 10)  # it does not wait for a task that will never run

    asyncio.run(go_on())
    assert entries(copy) == 0
    until_ended(threads)


def test_its_loop_dies_in_the_verification(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left, and the next backup to the same path works."""
    db = SQLiteDatabase(path)
    inside, leave = threading.Event(), threading.Event()

    def held(connection: Any, name: str) -> None:
        inside.set()
        assert leave.wait(30)
        page_copy.check_integrity(connection, name)

    async def go_on() -> None:
        await until(lambda: files_beside(copy) == set())
        await db.backup(copy)
        await db.close()

    monkeypatch.setattr("sa_sqlite_pool.backup.copy_job.check_integrity", held)
    threads = threading.enumerate()
    abandoned(first_backup(db, copy), inside.is_set)
    leave.set()
    asyncio.run(go_on())
    assert entries(copy) == 0
    until_ended(threads)


def test_its_loop_dies_between_two_jobs(path: Path) -> None:
    """The connection is released where nothing can be awaited."""
    workers: list[ConnectionThread] = []

    async def use() -> None:
        async with connected(Location(str(path)), None) as worker:
            workers.append(worker)
            await asyncio.Event().wait()

    threads = threading.enumerate()
    abandoned(use(), lambda: workers)
    gc.collect()
    assert workers[0].closed
    until_ended(threads)
