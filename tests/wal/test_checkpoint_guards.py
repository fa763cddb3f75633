"""The guards that keep a checkpoint from losing commits, whatever happens in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.stats.log import CheckpointMode, CheckpointOutcome
from sa_sqlite_pool.wal import one_checkpoint
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer, Numbers, move_after_commit
from tests.execution.workers import Gate, outcome
from tests.helpers import until
from tests.wal.checkpointing import FIRST_FRAME, Database, connect, lock_of, open_checkpointer

PASSIVE, FULL, RESTART, TRUNCATE = CheckpointMode
MOVED_ALL, TRUNCATED, *_ = CheckpointOutcome
MODES = pytest.mark.parametrize("mode", CheckpointMode)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
Run = Callable[[sqlite3.Connection, CheckpointMode], Numbers]


def instead(monkeypatch: pytest.MonkeyPatch, run: Callable[[Run], Run]) -> None:
    """Wrap the moment in which SQLite runs a checkpoint."""
    monkeypatch.setattr(one_checkpoint, "_numbers", run(one_checkpoint._numbers))


@MODES
async def test_nobody_can_commit_while_a_checkpoint_moves(
    database: Database,
    checkpointer: Checkpointer,
    mode: CheckpointMode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that does not know the package gets "database is locked"."""
    said: list[str] = []

    def around(run: Run) -> Run:
        def numbers(connection: sqlite3.Connection, mode: CheckpointMode) -> Numbers:
            if mode is PASSIVE:
                for moment in (lambda: None, lambda: run(connection, mode)):
                    moment()
                    with pytest.raises(sqlite3.OperationalError) as caught:
                        database.add()
                    said.append(str(caught.value))
            return run(connection, mode)

        return numbers

    instead(monkeypatch, around)
    assert (await checkpointer.run(mode)).outcome in {MOVED_ALL, TRUNCATED}
    assert said == ["database is locked"] * 2
    database.assert_free()


def test_a_commit_that_catches_up_is_alone_too(database: Database) -> None:
    """While another process writes, it leaves the log to that process."""
    connection, location = connect(database.path), Location(str(database.path))
    database.other.execute("BEGIN IMMEDIATE")
    move_after_commit(connection, location)
    assert database.nothing_moved
    database.other.execute("ROLLBACK")
    move_after_commit(connection, location)
    assert not database.nothing_moved
    connection.close()
    database.assert_free()


async def traced(worker: ConnectionThread, seen: Callable[[str], object]) -> None:
    await worker.run(lambda connection: connection.set_trace_callback(seen))


async def test_a_strong_checkpoint_is_never_run_on_an_affected_sqlite(
    database: Database, checkpointer: Checkpointer, affected: bool
) -> None:
    """Such checkpoints continue without the write lock if they find it taken."""
    seen: list[str] = []
    for worker in checkpointer._workers:
        await traced(worker, seen.append)
    for mode in CheckpointMode:
        await checkpointer.run(mode)
        database.add()
    run = {text.lower() for text in seen if "checkpoint" in text.lower()}
    assert run == {
        f"pragma wal_checkpoint({mode.value})"
        for mode in CheckpointMode
        if not affected or mode is PASSIVE
    }


async def test_a_checkpoint_that_fails_leaves_nothing_locked(
    database: Database, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised, and others can write at once."""

    def broken(run: Run) -> Run:
        def numbers(connection: sqlite3.Connection, mode: CheckpointMode) -> Numbers:
            raise sqlite3.OperationalError("disk I/O error")

        return numbers

    instead(monkeypatch, broken)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        await checkpointer.run(TRUNCATE)
    assert database.nothing_moved
    database.assert_free()


async def test_a_new_beginning_that_fails_leaves_nothing_locked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example is a full disk when the writer writes."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: True)
    checkpointer = await open_checkpointer(database.path)

    def forbid(action: int, name: str | None, value: str | None, *_: object) -> int:
        wrong = action == sqlite3.SQLITE_PRAGMA and name == "user_version" and value is not None
        return sqlite3.SQLITE_DENY if wrong else sqlite3.SQLITE_OK

    await lock_of(checkpointer).run(lambda connection: connection.set_authorizer(forbid))
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        await checkpointer.run(TRUNCATE)
    database.assert_free()
    await checkpointer.close()


@pytest.mark.parametrize("mode", [RESTART, TRUNCATE])
async def test_a_new_beginning_that_finds_another_writer(
    database: Database, monkeypatch: pytest.MonkeyPatch, mode: CheckpointMode
) -> None:
    """Everything is moved, the other writer restarts the log, and none waits or fails."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: True)
    checkpointer = await open_checkpointer(database.path)

    def come_between(text: str) -> None:
        if "journal_size_limit" in text:
            database.other.execute("BEGIN IMMEDIATE")

    await traced(lock_of(checkpointer), come_between)
    result = await checkpointer.run(mode)
    assert result.outcome is MOVED_ALL
    assert result.moved == result.frames == database.log.frames
    database.add()
    database.other.execute("COMMIT")
    assert database.log.frames < result.frames
    assert database.rows == 101
    await checkpointer.close()


@pytest.mark.parametrize("stays", [False, True])
async def test_a_new_beginning_that_another_writer_has_made(
    database: Database, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """It has committed in between: the log is not truncated, and no result claims so."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: True)
    checkpointer = await open_checkpointer(database.path)
    large = database.log.size
    reader: list[sqlite3.Connection] = []

    def come_between(text: str) -> None:
        if "journal_size_limit" in text:
            database.add()
            if stays:
                reader.append(database.reader())

    await traced(lock_of(checkpointer), come_between)
    result = await checkpointer.run(TRUNCATE)
    assert database.log.size == large
    assert result.outcome is MOVED_ALL
    assert result.moved == result.frames
    for one in reader:
        one.close()
    await traced(lock_of(checkpointer), lambda _: None)
    assert (await checkpointer.run(TRUNCATE)).outcome is TRUNCATED
    assert database.log.size == FIRST_FRAME
    assert database.rows == 101
    await checkpointer.close()


async def test_a_wrong_error_of_a_new_beginning_is_not_swallowed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a lock is tolerated."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: True)
    checkpointer = await open_checkpointer(database.path)
    seen: list[str] = []

    def interrupt() -> bool:
        return seen[-1] == "BEGIN IMMEDIATE" and any("size_limit" in one for one in seen)

    await traced(lock_of(checkpointer), seen.append)
    await lock_of(checkpointer).run(
        lambda connection: connection.set_progress_handler(interrupt, 1)
    )
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await checkpointer.run(TRUNCATE)
    await checkpointer.close()
    database.assert_free()


@MODES
async def test_a_cancellation_while_frames_are_moved(
    database: Database,
    checkpointer: Checkpointer,
    mode: CheckpointMode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running checkpoint is interrupted, however long it is, and the lock is released."""
    gate = Gate()

    def long(run: Run) -> Run:
        def numbers(connection: sqlite3.Connection, mode: CheckpointMode) -> Numbers:
            gate(connection)
            connection.execute(ENDLESS).fetchone()
            return run(connection, mode)

        return numbers

    instead(monkeypatch, long)
    task = asyncio.ensure_future(outcome(checkpointer.run(mode)))
    await gate.reached.wait()
    task.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert database.nothing_moved
    database.assert_free()


async def test_a_fork_does_not_close_what_is_in_use(
    database: Database, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is running at that moment completes."""
    gate = Gate()

    def held(run: Run) -> Run:
        def numbers(connection: sqlite3.Connection, mode: CheckpointMode) -> Numbers:
            gate(connection)
            return run(connection, mode)

        return numbers

    instead(monkeypatch, held)
    task = asyncio.ensure_future(outcome(checkpointer.run(PASSIVE)))
    await gate.reached.wait()
    checkpointer.close_before_fork()
    gate.open()
    assert (await task).outcome is MOVED_ALL


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "PRAGMA user_version = 77", "COMMIT"])
async def test_a_cancellation_while_the_log_begins_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """At each statement, the restart completes or is rolled back, and nothing is lost."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: True)
    checkpointer = await open_checkpointer(database.path)
    gate, seen, before = Gate(), list[str](), database.everything()

    def hold(text: str) -> None:
        seen.append(text)
        if text == statement and any("size_limit" in one for one in seen):
            gate(lock_of(checkpointer).connection)

    await traced(lock_of(checkpointer), hold)
    task = asyncio.ensure_future(outcome(checkpointer.run(TRUNCATE)))
    await gate.reached.wait()
    task.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert database.everything() == before
    database.assert_free()
    await checkpointer.close()


async def test_a_real_checkpoint_is_interrupted(path: Path) -> None:
    """SQLite stops a running checkpoint, and pages that were not moved are still in the log."""
    database = Database(path)
    database.other.execute("BEGIN")
    database.other.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) "
        "INSERT INTO t SELECT zeroblob(3500) FROM n"
    )
    database.other.execute("COMMIT")
    checkpointer = await open_checkpointer(path)
    job = checkpointer.run(PASSIVE)
    task = asyncio.ensure_future(outcome(job))
    while database.file_size == database.empty and not job.over:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: job.over)  # a slow disk may outlast the wait of a task
    assert database.rows == 10100
    database.other.execute("DELETE FROM t WHERE rowid > 100")
    database.assert_free()
    assert (await checkpointer.run(TRUNCATE)).outcome is TRUNCATED
    await checkpointer.close()
    database.other.close()
    with_another = connect(path)
    assert with_another.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with_another.close()
