"""At the hard limit, readers make room for the log, for a limited time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import CheckpointOutcome, SQLiteDatabase, SQLitePool
from sa_sqlite_pool.turn.write_turn import WriteTurn
from tests.conftest import MakeEngine
from tests.helpers import driver, turn_of, until
from tests.wal.gaps import COUNT, count_rows, db, fill, gaps, patient, read, reading

from .logs import KIB, SMALL, create_blobs, keeper_of, log_size, write

__all__ = ["db", "gaps", "patient"]


async def test_readers_that_always_overlap(patient: SQLiteDatabase, path: Path) -> None:
    """The next reader waits for the running ones to end and sees the newest commit, and the log is
    truncated in between.
    """
    db = patient
    first, second = await reading(db), await reading(db)
    snapshots = keeper_of(path).snapshots
    await fill(db, path)
    await until(lambda: snapshots.in_gap)
    third = asyncio.create_task(read(db))
    await write(db.writer_engine, 1)  # writers continue
    newest = await count_rows(db)
    await first.end()
    assert snapshots.in_gap
    assert not third.done()
    await second.end()
    assert await third == newest
    assert first.counts == [0, 0]
    assert log_size(path) < 64 * KIB
    last = keeper_of(path).checkpointing.last
    assert last is not None
    assert last.outcome is CheckpointOutcome.TRUNCATED


async def test_a_reader_that_outstays(
    db: SQLiteDatabase, path: Path, gaps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """It is named once; others wait for it only for the configured time, and only once."""
    stayer = await reading(db)
    await fill(db, path)
    await until(lambda: keeper_of(path).snapshots.in_gap)
    assert await read(db) is not None  # it waits for the gap's end
    await until(lambda: caplog.records)
    for _ in range(20):
        await write(db.writer_engine, 20)
        await read(db)
    assert gaps == [2 * SMALL.reader_gap]
    (warning,) = caplog.records
    assert (warning.name, warning.levelno) == ("sa_sqlite_pool", logging.WARNING)
    message = warning.getMessage()
    assert "task 'report' (now at gaps.py:" in message
    assert "last SQL: SELECT count(*) FROM blobs" in message
    assert "requested at gaps.py:" in message
    assert "max_snapshot_age" in message
    statistics = db.statistics().wal
    assert statistics is not None
    assert statistics.oldest_reader is not None
    assert statistics.oldest_reader.outstayed
    assert "task 'report'" in statistics.oldest_reader.who
    await stayer.end()
    await until(lambda: log_size(path) < 64 * KIB)
    assert stayer.counts == [0, 0]


async def test_a_read_that_was_declared_long(
    db: SQLiteDatabase, path: Path, gaps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """No task waits for it, and it is reported at the hard limit."""
    report = await reading(db, long=True)
    await fill(db, path)
    await until(lambda: caplog.records)
    assert gaps == []
    assert "it was declared long, so it continues" in caplog.text
    statistics = db.statistics().wal
    assert statistics is not None
    assert statistics.oldest_reader is not None
    assert statistics.oldest_reader.long
    await report.end()
    assert report.counts == [0, 0]
    await until(lambda: log_size(path) < 64 * KIB)


async def test_long_is_for_one_session(db: SQLiteDatabase, path: Path) -> None:
    """The connection forgets the option when it is returned."""
    for long in (True, False, True):
        reader = await reading(db, long=long)
        (snapshot,) = keeper_of(path).snapshots
        assert snapshot.long is long
        await reader.end()
    assert len(keeper_of(path).snapshots) == 0


async def test_long_as_an_option_of_a_connection(db: SQLiteDatabase, path: Path) -> None:
    """A snapshot ends with its connection, even if the connection is used again."""
    async with db.reader_engine.connect() as connection:
        await connection.execution_options(sqlite_long_read=True)
        await connection.execute(COUNT)
        (snapshot,) = keeper_of(path).snapshots
        assert snapshot.long
        (await driver(connection)).give_up("it was recalled", keep=True)
        with pytest.raises(OperationalError, match="it was recalled"):
            await connection.execute(COUNT)
    await until(lambda: len(keeper_of(path).snapshots) == 0)


async def test_a_log_that_grows_too_fast_makes_writers_wait_too(
    patient: SQLiteDatabase, path: Path
) -> None:
    """While readers end, the keeper holds the turn so that the log does not grow without bound."""
    db, turn = patient, turn_of(path)
    reader = await reading(db)
    await fill(db, path)
    await until(lambda: keeper_of(path).snapshots.in_gap)
    writing = asyncio.create_task(_write_for_ever(db))
    await until(lambda: turn.waiting == 1 and _keeper_has(turn))
    assert keeper_of(path).snapshots.in_gap
    await reader.end()
    await until(lambda: log_size(path) < 64 * KIB)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    assert reader.counts == [0, 0]


def _keeper_has(turn: WriteTurn) -> bool:
    return turn.holder is not None and "WAL keeper" in turn.holder.describe_holder()


async def _write_for_ever(db: SQLiteDatabase) -> None:
    while True:
        await write(db.writer_engine, 20)


async def test_a_session_that_waits_for_the_turn_with_a_snapshot(
    db: SQLiteDatabase, path: Path
) -> None:
    """Neither waits for the other for ever."""
    async with db.sessionmaker() as session:
        assert await session.scalar(COUNT) == 0  # on a reader
        await fill(db, path)
        await until(lambda: keeper_of(path).snapshots.in_gap)
        await session.execute(text("INSERT INTO blobs (data) VALUES (1)"))
        await session.commit()
    await until(lambda: log_size(path) < 64 * KIB)


async def test_a_cancelled_wait_for_the_end_of_a_gap(patient: SQLiteDatabase, path: Path) -> None:
    """No snapshot is left behind, and no reader stays acquired."""
    db = patient
    reader = await reading(db)
    await fill(db, path)
    await until(lambda: keeper_of(path).snapshots.in_gap)
    waiting = [asyncio.create_task(read(db)) for _ in range(3)]
    pool = db.reader_engine.pool
    await until(lambda: pool.checkedout() == 4)  # type: ignore[attr-defined]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(keeper_of(path).snapshots) == 1
    await reader.end()
    assert await asyncio.gather(*(read(db) for _ in range(4)))
    assert len(keeper_of(path).snapshots) == 0


async def test_without_a_gap_readers_never_wait(path: Path, gaps: list[float]) -> None:
    """With ``reader_gap=0``, the log is truncated when readers permit it."""
    async with SQLiteDatabase(path, wal=replace(SMALL, reader_gap=0)) as db:
        await create_blobs(db.writer_engine)
        reader = await reading(db)
        await fill(db, path)
        for _ in range(10):
            await write(db.writer_engine, 20)
            await read(db)
        assert gaps == []
        await reader.end()
        await until(lambda: log_size(path) < 64 * KIB)


async def test_gaps_in_vain_become_rare(
    db: SQLiteDatabase, path: Path, gaps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """If an outside reader is the obstacle, the package's readers do not wait each time."""
    keeper_of(path)._gap_pause.seconds = 10.0  # as after some of them
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM blobs").fetchone()
    await fill(db, path)
    await until(lambda: caplog.records)
    for _ in range(20):
        await write(db.writer_engine, 20)
    await until(lambda: keeper_of(path)._task is None)
    assert len(gaps) == 1
    assert "no reader of this process is in the way" in caplog.text
    other.close()


async def test_a_writer_of_a_swap_in_pool_is_no_reader(make_engine: MakeEngine, path: Path) -> None:
    """It holds the turn, for which the keeper waits."""
    engine = make_engine(SQLitePool, wal=SMALL)
    await create_blobs(engine)
    snapshots = keeper_of(path).snapshots
    async with engine.begin() as connection:
        await connection.execute(COUNT)
        assert len(snapshots) == 0  # it read without a transaction
        await connection.execute(text("INSERT INTO blobs (data) VALUES (1)"))
        await connection.execute(COUNT)
        assert len(snapshots) == 0
    async with engine.execution_options(sqlite_role="reader").connect() as connection:
        await connection.execute(COUNT)
        assert len(snapshots) == 1
    assert len(snapshots) == 0


async def test_every_read_is_entered_and_left(db: SQLiteDatabase, path: Path) -> None:
    """This covers sessions, connections, streams, AUTOCOMMIT and errors."""
    snapshots = keeper_of(path).snapshots
    async with db.reader_engine.connect() as connection:
        await connection.execute(COUNT)
        assert len(snapshots) == 1
        await connection.commit()
        assert len(snapshots) == 0
        with pytest.raises(OperationalError):
            await connection.execute(text("SELECT * FROM nothing"))
        await connection.rollback()
        assert len(snapshots) == 0
        stream = await connection.stream(COUNT)
        assert len(snapshots) == 1
        await stream.close()
    assert len(snapshots) == 0
    autocommit = db.reader_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        stream = await connection.stream(COUNT)
        assert len(snapshots) == 1  # the statement is open
        await stream.close()
        assert len(snapshots) == 0
        await connection.execute(COUNT)
        assert len(snapshots) == 0
    session: AsyncSession
    async with db.sessionmaker() as session:
        await session.execute(COUNT)
        assert len(snapshots) == 1
    async with db.write() as session:
        await session.execute(COUNT)
        assert len(snapshots) == 0  # a writer holds the turn; the keeper waits for that
    assert len(snapshots) == 0
