"""Snapshots that grow too old are ended, on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import SnapshotTooOldError, SQLiteDatabase
from tests.helpers import ENDLESS, until
from tests.wal.gaps import COUNT, count_rows, fill, read, reading

from .logs import KIB, SMALL, create_blobs, keeper_of, log_size, write


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
        """Its next attempts are refused until rollback(); then it reads the newest state."""
        async with db.read() as session:
            assert await session.scalar(COUNT) == 0
            await self.fill(db, path)
            for _ in range(2):
                with pytest.raises(OperationalError, match=r"max_snapshot_age=0.0 s") as caught:
                    await session.scalar(COUNT)
                assert isinstance(caught.value.orig, SnapshotTooOldError)
            await session.rollback()
            assert await session.scalar(COUNT) == await count_rows(db)
        assert "ended a read transaction that was older than max_snapshot_age" in caplog.text
        assert len(keeper_of(path).snapshots) == 0

    @pytest.mark.needs_thread
    async def test_in_the_middle_of_a_statement(self, db: SQLiteDatabase, path: Path) -> None:
        """The statement is stopped."""

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
        """The stream loses its snapshot."""
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
        """A session that has read everything gets no error."""
        async with db.read() as session, session.begin():
            assert await session.scalar(COUNT) == 0
            await self.fill(db, path)
        async with db.read() as session:
            assert await session.scalar(COUNT)

    async def test_it_is_said_once(
        self, db: SQLiteDatabase, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """This holds even if the loop of its task is busy and it ends later."""
        reader, keeper = await reading(db), keeper_of(path)
        (snapshot,) = keeper.snapshots
        snapshot._end_early = None
        await fill(db, path)
        await until(lambda: "ended a read transaction" in caplog.text)
        for _ in range(2):
            keeper._warn_or_end_readers(keeper.monitor.situation())
        assert caplog.text.count("ended a read transaction") == 1
        await reader.end()

    async def test_a_long_one_goes_on(self, db: SQLiteDatabase, path: Path) -> None:
        """A reader declared as long is exempt."""
        report = await reading(db, long=True)
        await fill(db, path)
        await until(lambda: keeper_of(path).checkpointing.last is not None)
        await report.end()
        assert report.counts == [0, 0]

    async def test_an_end_that_comes_too_late(self, db: SQLiteDatabase, path: Path) -> None:
        """It was meant for a transaction that has already ended; the next one continues."""
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
        """Only a log that is too large justifies an error."""
        reader = await reading(db)
        await write(db.writer_engine, 100)
        await until(lambda: keeper_of(path).checkpointing.last is not None)
        await reader.end()
        assert reader.counts == [0, 0]


async def test_a_reader_that_grows_too_old_after_it_has_outstayed(path: Path) -> None:
    """A gap in vain does not settle the matter."""
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
