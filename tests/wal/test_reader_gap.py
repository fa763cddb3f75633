"""At the hard limit readers make room for the log, for a bounded moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from sa_sqlite_pool import CheckpointOutcome, SnapshotTooOldError, SQLiteDatabase, SQLitePool
from sa_sqlite_pool.turn.snapshots import Snapshots
from sa_sqlite_pool.turn.write_turn import WriteTurn
from tests.conftest import MakeEngine
from tests.helpers import ENDLESS, driver, turn_of, until

from .logs import KIB, SMALL, create_blobs, keeper_of, log_size, write

COUNT = text("SELECT count(*) FROM blobs")


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """A facade whose log is small, with the table ``blobs``."""
    async with SQLiteDatabase(path, wal=SMALL) as database:
        await create_blobs(database.writer_engine)
        yield database


@pytest.fixture
async def patient(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """The same, and a gap lasts until its readers have ended."""
    async with SQLiteDatabase(path, wal=replace(SMALL, reader_gap=60)) as database:
        await create_blobs(database.writer_engine)
        yield database


class Reader:
    """A task that keeps a snapshot until it is told to end."""

    def __init__(self, db: SQLiteDatabase, *, long: bool = False) -> None:
        self.has_read = asyncio.Event()
        self.leave = asyncio.Event()
        self.counts: list[int | None] = []
        self._read = db.read(long=long)
        self.task = asyncio.create_task(self._run(), name="report")

    async def _run(self) -> None:
        async with self._read as session:
            self.counts.append(await session.scalar(COUNT))
            self.has_read.set()
            await self.leave.wait()
            self.counts.append(await session.scalar(COUNT))

    async def end(self) -> None:
        self.leave.set()
        await self.task


async def reading(db: SQLiteDatabase, *, long: bool = False) -> Reader:
    reader = Reader(db, long=long)
    await reader.has_read.wait()
    return reader


async def read(db: SQLiteDatabase) -> int:
    async with db.read() as session:
        return int(await session.scalar(COUNT) or 0)


async def fill(db: SQLiteDatabase, path: Path) -> None:
    """Write until the log is beyond its hard limit, however often it is moved."""
    for _ in range(100):
        await write(db.writer_engine, 20)
        if log_size(path) >= 300 * KIB:
            return
    raise AssertionError("the log never grew")


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each gap may last."""
    made: list[float] = []
    original = Snapshots.gap

    @contextlib.contextmanager
    def gap(self: Snapshots, seconds: float):  # type: ignore[no-untyped-def]
        made.append(seconds)
        with original(self, seconds) as made_gap:
            yield made_gap

    monkeypatch.setattr(Snapshots, "gap", gap)
    return made


async def test_readers_that_always_overlap(patient: SQLiteDatabase, path: Path) -> None:
    """The next reader waits for the running ones to end, sees the newest commit, and the log is
    truncated in between.
    """
    db = patient
    first, second = await reading(db), await reading(db)
    snapshots = keeper_of(path).snapshots
    await fill(db, path)
    await until(lambda: snapshots.in_gap)
    third = asyncio.create_task(read(db))
    await write(db.writer_engine, 1)  # writers go on
    newest = await _rows(db)
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


async def _rows(db: SQLiteDatabase) -> int:
    async with db.write() as session:
        return int(await session.scalar(COUNT) or 0)


async def test_a_reader_that_outstays(
    db: SQLiteDatabase, path: Path, gaps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, once; others wait for it no longer than said, and only once."""
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
    assert "task 'report' (now at test_reader_gap.py:" in message
    assert "last SQL: SELECT count(*) FROM blobs" in message
    assert "which asked for it at test_reader_gap.py:" in message
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
    """Nobody waits for it; it is reported at the hard limit."""
    report = await reading(db, long=True)
    await fill(db, path)
    await until(lambda: caplog.records)
    assert gaps == []
    assert "it was declared long, so it goes on" in caplog.text
    statistics = db.statistics().wal
    assert statistics is not None
    assert statistics.oldest_reader is not None
    assert statistics.oldest_reader.long
    await report.end()
    assert report.counts == [0, 0]
    await until(lambda: log_size(path) < 64 * KIB)


async def test_long_is_for_one_session(db: SQLiteDatabase, path: Path) -> None:
    """The connection forgets it when it comes back."""
    for long in (True, False, True):
        reader = await reading(db, long=long)
        (snapshot,) = keeper_of(path).snapshots
        assert snapshot.long is long
        await reader.end()
    assert len(keeper_of(path).snapshots) == 0


async def test_long_as_an_option_of_a_connection(db: SQLiteDatabase, path: Path) -> None:
    """And a snapshot goes with its connection, even if somebody tries to use that once more."""
    async with db.reader_engine.connect() as connection:
        await connection.execution_options(sqlite_long_read=True)
        await connection.execute(COUNT)
        (snapshot,) = keeper_of(path).snapshots
        assert snapshot.long
        (await driver(connection)).give_up("it was recalled", keep=True)
        with pytest.raises(OperationalError, match="it was recalled"):
            await connection.execute(COUNT)
    await until(lambda: len(keeper_of(path).snapshots) == 0)


class TestMaxSnapshotAge:
    """Readers that are too old are ended at the hard limit."""

    @pytest.fixture
    async def db(self, path: Path) -> AsyncIterator[SQLiteDatabase]:
        settings = replace(SMALL, max_snapshot_age=0.0)
        async with SQLiteDatabase(path, wal=settings) as database:
            await create_blobs(database.writer_engine)
            yield database

    async def fill(self, db: SQLiteDatabase, path: Path) -> None:
        await fill(db, path)
        await until(lambda: log_size(path) < 64 * KIB)

    async def test_between_statements(
        self, db: SQLiteDatabase, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What it tries next is refused until rollback(), then it reads the newest state."""
        async with db.read() as session:
            assert await session.scalar(COUNT) == 0
            await self.fill(db, path)
            for _ in range(2):
                with pytest.raises(OperationalError, match=r"max_snapshot_age=0.0 s") as caught:
                    await session.scalar(COUNT)
                assert isinstance(caught.value.orig, SnapshotTooOldError)
            await session.rollback()
            assert await session.scalar(COUNT) == await _rows(db)
        assert "ended a read transaction that was older than max_snapshot_age" in caplog.text
        assert len(keeper_of(path).snapshots) == 0

    @pytest.mark.needs_thread
    async def test_in_the_middle_of_a_statement(self, db: SQLiteDatabase, path: Path) -> None:
        """It is stopped."""

        async def endless() -> None:
            async with db.read() as session:
                await session.execute(ENDLESS)

        task = asyncio.create_task(endless())
        await until(lambda: len(keeper_of(path).snapshots) == 1)
        await self.fill(db, path)
        with pytest.raises(OperationalError, match="max_snapshot_age") as caught:
            await task
        assert isinstance(caught.value.orig, SnapshotTooOldError)
        assert await read(db) is not None

    async def test_in_the_middle_of_a_stream(self, db: SQLiteDatabase, path: Path) -> None:
        """Its snapshot goes with it."""
        for _ in range(30):
            await write(db.writer_engine, 1)
        async with db.read() as session:
            rows = await session.stream(
                text("SELECT id FROM blobs"), execution_options={"yield_per": 2}
            )
            await rows.fetchone()
            await self.fill(db, path)
            with pytest.raises(OperationalError, match="max_snapshot_age"):
                async for _ in rows:
                    pass

    async def test_the_end_of_it_is_no_error(self, db: SQLiteDatabase, path: Path) -> None:
        """Whoever has read everything never hears of it."""
        async with db.read() as session, session.begin():
            assert await session.scalar(COUNT) == 0
            await self.fill(db, path)
        async with db.read() as session:
            assert await session.scalar(COUNT)

    async def test_a_long_one_goes_on(self, db: SQLiteDatabase, path: Path) -> None:
        """Who says so is believed."""
        report = await reading(db, long=True)
        await fill(db, path)
        await until(lambda: keeper_of(path).checkpointing.last is not None)
        await report.end()
        assert report.counts == [0, 0]

    async def test_an_end_that_comes_too_late(self, db: SQLiteDatabase, path: Path) -> None:
        """It was meant for a transaction that has ended by itself; the next one goes on."""
        async with db.read() as session:
            await session.scalar(COUNT)
            (snapshot,) = keeper_of(path).snapshots
            await session.rollback()
            await session.scalar(COUNT)
            snapshot.end_early(AssertionError)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(keeper_of(path).snapshots) == 1
            assert await session.scalar(COUNT) == 0

    async def test_who_is_too_old_is_no_reason_to_wait(
        self, db: SQLiteDatabase, path: Path
    ) -> None:
        """It will be ended, so a gap is not in vain, although one was; for a long one it is."""
        for long in (False, True):
            reader = await reading(db, long=long)
            (snapshot,) = keeper_of(path).snapshots
            snapshot.outstayed = True
            assert keeper_of(path).monitor.situation().pinned is long
            await reader.end()

    async def test_below_the_hard_limit_age_is_no_harm(
        self, db: SQLiteDatabase, path: Path
    ) -> None:
        """Only a log that is too large is worth an error."""
        reader = await reading(db)
        await write(db.writer_engine, 100)
        await until(lambda: keeper_of(path).checkpointing.last is not None)
        await reader.end()
        assert reader.counts == [0, 0]


async def test_a_reader_that_grows_too_old_after_it_has_outstayed(path: Path) -> None:
    """A gap in vain is not the last word."""
    settings = replace(SMALL, reader_gap=0.05, max_snapshot_age=3600.0)
    async with SQLiteDatabase(path, wal=settings) as db:
        await create_blobs(db.writer_engine)
        reader = await reading(db)
        await fill(db, path)
        (snapshot,) = keeper_of(path).snapshots
        await until(lambda: snapshot.outstayed)
        snapshot.since -= 3600.0
        while log_size(path) > 64 * KIB:
            await write(db.writer_engine, 1)
        with pytest.raises(OperationalError, match="max_snapshot_age"):
            await reader.end()


async def test_a_log_that_grows_too_fast_makes_writers_wait_too(
    patient: SQLiteDatabase, path: Path
) -> None:
    """While readers end, the keeper takes the turn rather than let the log grow without bound."""
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
    """It leaves nothing: no snapshot, no reader taken."""
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
    """``reader_gap=0``; the log is truncated when they let it."""
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
    """Where a reader outside is in the way, those of the package do not wait each time."""
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
    """It has the turn, and the keeper waits for that."""
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
    """By sessions, connections, streams, AUTOCOMMIT and errors, to the last one."""
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
        assert len(snapshots) == 0  # a writer has the turn; the keeper waits for that
    assert len(snapshots) == 0
