"""One checkpoint: its effect and result, on SQLite versions that can lose commits and on others.

Both methods are run on the installed SQLite; each is correct on either kind.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from sa_sqlite_pool.execution.connection_thread import ConnectionThread, _open_connections
from sa_sqlite_pool.settings import PragmaValue
from sa_sqlite_pool.stats.log import CheckpointMode, CheckpointOutcome
from sa_sqlite_pool.wal import one_checkpoint
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer, outcome_of
from tests.helpers import until
from tests.wal.checkpointing import FIRST_FRAME, Database, connect, lock_of, open_checkpointer

PASSIVE, FULL, RESTART, TRUNCATE = CheckpointMode
MOVED_ALL, TRUNCATED, HELD_BACK, BUSY, NOT_WAL = CheckpointOutcome
MODES = pytest.mark.parametrize("mode", CheckpointMode)
STRONG = pytest.mark.parametrize("mode", [FULL, RESTART, TRUNCATE])


@pytest.mark.parametrize(
    ("mode", "numbers", "expected"),
    [
        (PASSIVE, (0, 0, 0), MOVED_ALL),
        (PASSIVE, (0, 7, 7), MOVED_ALL),
        (PASSIVE, (0, 7, 6), HELD_BACK),
        (PASSIVE, (0, -1, -1), NOT_WAL),
        (PASSIVE, (1, -1, -1), BUSY),
        (FULL, (0, 7, 7), MOVED_ALL),
        (FULL, (1, 7, 6), HELD_BACK),
        (FULL, (1, 7, 7), HELD_BACK),
        (RESTART, (0, 7, 7), MOVED_ALL),
        (RESTART, (1, 7, 7), HELD_BACK),
        (TRUNCATE, (0, 0, 0), TRUNCATED),
        (TRUNCATE, (0, 7, 6), HELD_BACK),
        (TRUNCATE, (1, 7, 7), HELD_BACK),
        (TRUNCATE, (1, -1, -1), BUSY),
        (TRUNCATE, (0, -1, -1), NOT_WAL),
    ],
)
def test_what_the_numbers_mean(
    mode: CheckpointMode, numbers: tuple[int, int, int], expected: CheckpointOutcome
) -> None:
    """https://www.sqlite.org/pragma.html#pragma_wal_checkpoint"""
    assert outcome_of(mode, numbers) is expected


@MODES
async def test_everything_is_moved(
    database: Database, checkpointer: Checkpointer, mode: CheckpointMode
) -> None:
    """With no obstacle, the database file has everything, and all users can continue."""
    before, log = database.everything(), database.log
    result = await checkpointer.run(mode)
    assert result.mode is mode
    assert result.outcome is (TRUNCATED if mode is TRUNCATE else MOVED_ALL)
    assert (result.busy, result.held_back_by) == (False, None)
    assert result.seconds > 0
    if mode in {PASSIVE, FULL}:
        assert result.moved == result.frames == log.frames
    assert database.file_size > 100 * 2000
    assert database.everything() == before
    database.assert_free()


async def test_truncated(database: Database, checkpointer: Checkpointer, affected: bool) -> None:
    """The file is empty; if a writer has to restart the log, it holds the one page written."""
    assert (await checkpointer.run(TRUNCATE)).outcome is TRUNCATED
    assert database.log.size == (FIRST_FRAME if affected else 0)
    database.add()
    assert database.log.size < 5 * FIRST_FRAME


async def test_restarted(database: Database, checkpointer: Checkpointer) -> None:
    """The next writer starts at the front; the file keeps its size, even after a truncation."""
    for _ in range(2):
        large = database.log
        assert (await checkpointer.run(RESTART)).outcome is MOVED_ALL
        database.add()
        assert database.log.salts != large.salts
        assert database.log.frames < large.frames
        assert database.log.size == large.size
        await checkpointer.run(TRUNCATE)
        database.add(100)


async def test_a_checkpoint_of_nothing(database: Database, checkpointer: Checkpointer) -> None:
    """Repeating a checkpoint is not an error."""
    for _ in range(2):
        assert (await checkpointer.run(TRUNCATE)).outcome is TRUNCATED
        assert (await checkpointer.run(PASSIVE)).outcome is MOVED_ALL


@MODES
async def test_a_reader_of_an_old_state(
    database: Database, checkpointer: Checkpointer, mode: CheckpointMode
) -> None:
    """Later pages stay in the log, and the reader keeps seeing its state."""
    reader = database.reader()
    old = database.log.frames
    database.add(10)
    result = await checkpointer.run(mode)
    assert result.outcome is HELD_BACK
    assert result.moved == old < result.frames == database.log.frames
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (100,)
    reader.close()
    assert (await checkpointer.run(PASSIVE)).outcome is MOVED_ALL


@MODES
async def test_a_reader_at_the_end_of_the_log(
    database: Database, checkpointer: Checkpointer, mode: CheckpointMode
) -> None:
    """Everything is moved, but the log cannot restart: only modes that require it are held back."""
    reader, large = database.reader(), database.log
    result = await checkpointer.run(mode)
    held_back = mode in {RESTART, TRUNCATE}
    assert result.outcome is (HELD_BACK if held_back else MOVED_ALL)
    assert result.busy is held_back
    assert result.moved == large.frames
    assert database.file_size > 100 * 2000
    assert database.log.size >= large.size
    assert database.log.salts == large.salts
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (100,)
    reader.close()
    assert (await checkpointer.run(TRUNCATE)).outcome is TRUNCATED
    database.assert_free()


@MODES
async def test_somebody_writes(
    database: Database, checkpointer: Checkpointer, mode: CheckpointMode
) -> None:
    """The checkpoint gives up at once, and does not disturb the writer."""
    database.other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        await checkpointer.run(mode)
    assert database.nothing_moved
    database.add()
    database.other.execute("COMMIT")
    assert (await checkpointer.run(PASSIVE)).outcome is MOVED_ALL
    assert database.rows == 101


@MODES
async def test_somebody_else_runs_a_checkpoint(
    database: Database,
    checkpointer: Checkpointer,
    mode: CheckpointMode,
) -> None:
    """The second of two processes with this package finds the write lock taken."""
    second = await open_checkpointer(database.path)
    lock_of(second).connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        await checkpointer.run(mode)
    assert database.nothing_moved
    lock_of(second).connection.execute("ROLLBACK")
    await second.close()


@MODES
async def test_no_log(database: Database, affected: bool, mode: CheckpointMode) -> None:
    """If the database is not in WAL mode, nothing happens, and nothing stays locked."""
    database.other.execute("PRAGMA journal_mode = DELETE")
    checkpointer = await open_checkpointer(database.path)
    result = await checkpointer.run(mode)
    assert (result.outcome, result.frames, result.moved) == (NOT_WAL, -1, -1)
    await checkpointer.close()
    database.add()
    assert database.rows == 101


async def test_a_missing_database(path: Path, affected: bool) -> None:
    """It is not created, and no thread is left behind."""
    before = set(threading.enumerate())
    for _ in range(10):
        with pytest.raises(sqlite3.OperationalError, match="unable to open"):
            await open_checkpointer(path)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive()
    assert not path.exists()


async def test_a_file_that_is_no_database(path: Path, affected: bool) -> None:
    """Both connections are closed."""
    path.write_bytes(b"no database" * 1000)
    before = set(_open_connections)
    with pytest.raises(sqlite3.DatabaseError, match="not a database") as caught:
        await open_checkpointer(path)
    await until(lambda: _open_connections == before)
    del caught  # until now it has kept them from the garbage collector


async def test_the_second_connection_cannot_be_opened(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first connection is closed."""
    before = set(_open_connections)
    opened = ConnectionThread.open
    ways = iter([opened])

    async def open_once(uri: str, file: str | None) -> ConnectionThread:
        for way in ways:
            return await way(uri, file)
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(ConnectionThread, "open", open_once)
    with pytest.raises(sqlite3.OperationalError, match="unable to open") as caught:
        await open_checkpointer(database.path)
    await until(lambda: _open_connections == before)
    del caught  # until now it has kept it from the garbage collector


async def test_a_file_that_is_locked_for_a_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection may be closing at that moment, so the opening is retried."""
    database.other.close()
    exclusive = sqlite3.connect(database.path, isolation_level=None)
    exclusive.execute("PRAGMA locking_mode = EXCLUSIVE")
    exclusive.execute("SELECT count(*) FROM t").fetchone()
    tries: list[sqlite3.Connection] = []
    prepare = one_checkpoint._prepare

    def counting(connection: sqlite3.Connection, pragmas: Mapping[str, PragmaValue]) -> None:
        tries.append(connection)
        prepare(connection, pragmas)

    monkeypatch.setattr(one_checkpoint, "_prepare", counting)
    opening = asyncio.create_task(open_checkpointer(database.path))
    await until(lambda: len(tries) == 3)
    exclusive.close()
    await (await opening).close()


async def test_settings_of_the_connections(database: Database) -> None:
    """They wait for no lock, and sync to disk as the writer does."""
    checkpointer = await open_checkpointer(database.path)
    for worker in checkpointer._workers:
        for pragma, expected in (
            ("busy_timeout", 0),
            ("synchronous", 0),
            ("wal_autocheckpoint", 0),
        ):
            row = worker.connection.execute(f"PRAGMA {pragma}").fetchone()
            assert row == (expected,)
    await checkpointer.close()


async def test_closing(database: Database) -> None:
    """Both ways to end it close both connections."""
    before = set(_open_connections)
    first = await open_checkpointer(database.path)
    assert len(_open_connections - before) == 2
    await first.close()
    assert _open_connections == before
    second = await open_checkpointer(database.path)
    second.give_up()
    await until(lambda: _open_connections == before)
    third = await open_checkpointer(database.path)
    third.close_before_fork()
    assert _open_connections == before


async def test_content_is_unchanged_by_a_new_beginning(
    database: Database, checkpointer: Checkpointer
) -> None:
    """The writer that restarts the log writes only existing content."""
    before = database.everything()
    for mode in (RESTART, TRUNCATE, RESTART, TRUNCATE):
        assert (await checkpointer.run(mode)).busy is False
        assert database.everything() == before
    with_another = connect(database.path)
    assert with_another.execute("PRAGMA user_version").fetchone() == (77,)
    with_another.close()
