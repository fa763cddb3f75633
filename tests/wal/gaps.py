"""Readers beside a log that has grown to its hard limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.turn.snapshots import Snapshots

from .logs import KIB, SMALL, create_blobs, log_size, write

COUNT = text("SELECT count(*) FROM blobs")


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Yield a facade whose log is small, with the table ``blobs``."""
    async with SQLiteDatabase(path, wal=SMALL) as database:
        await create_blobs(database.writer_engine)
        yield database


@pytest.fixture
async def patient(path: Path) -> AsyncIterator[SQLiteDatabase]:
    """Yield the same with gaps that last until their readers have ended."""
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
    """Write until the log exceeds its hard limit, however often it is moved."""
    for _ in range(100):
        await write(db.writer_engine, 20)
        if log_size(path) >= 300 * KIB:
            return
    raise AssertionError("the log never grew")


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the seconds that each gap may last."""
    made: list[float] = []
    original = Snapshots.gap

    @contextlib.contextmanager
    def gap(self: Snapshots, seconds: float):  # type: ignore[no-untyped-def]
        made.append(seconds)
        with original(self, seconds) as made_gap:
            yield made_gap

    monkeypatch.setattr(Snapshots, "gap", gap)
    return made


async def count_rows(db: SQLiteDatabase) -> int:
    async with db.write() as session:
        return int(await session.scalar(COUNT) or 0)
