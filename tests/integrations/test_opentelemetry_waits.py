"""OpenTelemetry: connections and waits, as its SDK collects them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import ReadTimeout, SQLiteDatabase, WriteTimeout
from tests.helpers import UPDATE_FIRST, Item, create_items, turn_of, until_waiting

pytest.importorskip("opentelemetry.sdk")


from tests.integrations.collected import CONNECTION, Metrics, Record, add_one, metrics, read, record

__all__ = ["metrics", "record"]


async def test_connections_by_the_conventions(path: Path, metrics: Metrics, record: Record) -> None:
    """Counts, maxima and pending requests are recorded, and the duration of each operation."""
    async with SQLiteDatabase(path, readers=2) as db:
        await create_items(db.writer_engine)
        record(db)
        async with db.read() as one, db.read() as two:
            await one.execute(text("SELECT 1"))
            await two.execute(text("SELECT 1"))
            waiting = asyncio.create_task(db.run_read(lambda session: session.get(Item, 1)))
            third = asyncio.create_task(read(db))
            await until_waiting(2, db.reader_engine.pool.line)  # type: ignore[attr-defined]
            reader = {"name": "app.db/reader"}
            assert metrics.value(f"{CONNECTION}count", state="used", **reader) == 2
            assert metrics.value(f"{CONNECTION}count", state="idle", **reader) == 0
            assert metrics.value(f"{CONNECTION}max", **reader) == 2
            assert metrics.value(f"{CONNECTION}idle.max", **reader) == 2
            assert metrics.value(f"{CONNECTION}pending_requests", **reader) == 2
            assert metrics.value(f"{CONNECTION}pending_requests", name="app.db/writer") == 0
        await asyncio.gather(waiting, third)
        assert metrics.value(f"{CONNECTION}count", state="idle", **reader) == 2
        opened = metrics.point(f"{CONNECTION}create_time", **reader)
        assert (opened.count, opened.sum > 0) == (1, True)
        waited = metrics.point(f"{CONNECTION}wait_time", **reader)
        assert waited.count == 4
        assert waited.min == 0
        assert waited.max > 0
        used = metrics.point(f"{CONNECTION}use_time", **reader)
        assert used.count == 4
        assert used.min > 0


async def test_time_outs(path: Path, metrics: Metrics, record: Record) -> None:
    """Time-outs are counted for each way to wait for a connection, in sessions and functions."""
    async with SQLiteDatabase(path, readers=1, write_timeout=0.01, read_timeout=0.01) as db:
        await create_items(db.writer_engine)
        record(db)
        async with db.write() as writing, db.read() as reading:
            await writing.execute(UPDATE_FIRST)
            await reading.execute(text("SELECT 1"))
            for write in (add_one(db), db.run_write(lambda _: None)):
                with pytest.raises(WriteTimeout):
                    await asyncio.create_task(write)
            for reads in (read(db), db.run_read(lambda _: None)):
                with pytest.raises(ReadTimeout):
                    await asyncio.create_task(reads)
        assert metrics.value(f"{CONNECTION}timeouts", name="app.db/writer") == 2
        assert metrics.value(f"{CONNECTION}timeouts", name="app.db/reader") == 2


async def test_waits_for_the_turn(
    swap_in: AsyncEngine, path: Path, metrics: Metrics, record: Record
) -> None:
    """A histogram records their durations; a free turn is not recorded."""
    await create_items(swap_in)
    record(swap_in)

    async def write() -> None:
        async with swap_in.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        task = asyncio.create_task(write())
        await until_waiting(1, turn_of(path))
        assert metrics.value("sa_sqlite_pool.turn.waiting") == 1
    await task
    point = metrics.point("sa_sqlite_pool.turn.wait", namespace="app.db")
    assert (point.count, point.sum > 0) == (1, True)
    assert metrics.value("sa_sqlite_pool.turn.requests", outcome="waited") == 1


async def test_waits_of_functions_that_share_a_commit(
    db: SQLiteDatabase, metrics: Metrics, path: Path, record: Record
) -> None:
    """Each call counts as a wait, although they stand in line together."""
    await create_items(db.writer_engine)
    record(db)

    def add(session: Session) -> None:
        session.execute(UPDATE_FIRST)

    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        calls = [asyncio.create_task(db.run_write(add)) for _ in range(3)]
        await until_waiting(1, turn_of(path))
    await asyncio.gather(*calls)
    assert metrics.point("sa_sqlite_pool.turn.wait").count == 3
    assert metrics.point(f"{CONNECTION}wait_time", name="app.db/writer").count == 2
