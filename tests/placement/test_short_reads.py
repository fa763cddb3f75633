"""Short reads go straight to SQLite, on the loop. Whatever comes between is noticed all the same."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import (
    ReaderPool,
    SnapshotTooOldError,
    SQLitePool,
    TransactionLostError,
    WriterPool,
)
from sa_sqlite_pool.driver import laps
from sa_sqlite_pool.errors import ForbiddenWriteError
from sa_sqlite_pool.turn.snapshots import Snapshots
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, create_items, driver, turn_of, until
from tests.placement.work import LEARNING, READ, WRITE, Run, Trace, learn, run

BLOB = "SELECT length(data) FROM blobs WHERE id = 5"


@pytest.fixture
async def reader(make_engine: MakeEngine, trace: Trace) -> AsyncEngine:
    """One that knows ``READ``."""
    await create_items(make_engine(WriterPool))
    made = make_engine(ReaderPool, on_connect=trace.on_connect)
    await learn(made, READ)
    return made


def snapshots_of(connection_or_engine: AsyncEngine) -> Snapshots:
    keeper = connection_or_engine.pool.keeper  # type: ignore[attr-defined]
    return keeper.snapshots  # type: ignore[no-any-return]


@contextmanager
def without_log(path: Path) -> Iterator[None]:
    """What is in the log cannot be read."""
    log = Path(f"{path}-wal")
    content = log.read_bytes()
    os.truncate(log, 0)
    try:
        yield
    finally:
        log.write_bytes(content)


async def test_a_transaction_that_sqlite_ended_in_a_read(engine: AsyncEngine, path: Path) -> None:
    """A read that fails may take all with it; nothing of the rest is committed by itself."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data)"))
        for _ in range(8):
            await connection.execute(text("INSERT INTO blobs (data) VALUES (randomblob(3000))"))
    await learn(engine, BLOB)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.execute(text("PRAGMA shrink_memory"))  # SQLite has to read again
        with without_log(path), pytest.raises(OperationalError, match="disk I/O error"):
            await connection.execute(text(BLOB))
        with pytest.raises(DBAPIError, match="call rollback") as caught:
            await connection.execute(UPDATE_FIRST)
        assert isinstance(caught.value.orig, TransactionLostError)
        await connection.rollback()
        assert await connection.scalar(text(BLOB)) == 3000
    assert await run(engine, READ) == [[0]]


async def test_a_snapshot_that_is_ended_during_a_pause(
    reader: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read after it is refused: it would see another state."""
    async with reader.connect() as connection:
        await connection.execute(text(READ))
        (snapshot,) = snapshots_of(reader)
        monkeypatch.setattr(laps, "_SECONDS_HOLDING", 0.0)
        snapshot.end_early(lambda: SnapshotTooOldError("it stood in the way"))
        with pytest.raises(OperationalError, match="it stood in the way") as caught:
            await connection.execute(text(READ))
        assert isinstance(caught.value.orig, SnapshotTooOldError)
