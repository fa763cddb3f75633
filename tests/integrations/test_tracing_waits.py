"""Spans of waits in line: for the write turn, for another process, for a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import ReadTimeout, SQLiteDatabase, WriteTimeout
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until_waiting
from tests.turn.locks import blocked, other_process

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.instrumentation.sqlalchemy")

from opentelemetry.trace import StatusCode

from tests.integrations.spans import Spans, Traced, spans, statements_traced, traced

__all__ = ["spans", "statements_traced", "traced"]

WAIT = "sa_sqlite_pool.wait"


async def update(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


async def read(db: SQLiteDatabase) -> None:
    async with db.read() as session:
        await session.execute(text("SELECT 1"))


def run_update(db: SQLiteDatabase) -> Awaitable[None]:
    def change(session: Session) -> None:
        session.execute(UPDATE_FIRST)

    return db.run_write(change)


@pytest.mark.parametrize("wait", [update, run_update])
async def test_a_wait_for_the_turn(
    db: SQLiteDatabase, path: Path, spans: Spans, traced: Traced, wait: Callable[..., Any]
) -> None:
    """Its span is in that of the waiting task, lasts as long as the wait, and names the holder."""
    await create_items(db.writer_engine)
    traced(db)

    seen: list[int] = []

    async def hold() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            task = asyncio.create_task(spans.under("waiting", lambda: wait(db)))
            await until_waiting(1, turn_of(path))
            seen.append(time.time_ns())
            await asyncio.sleep(0)
        await task

    await asyncio.create_task(hold(), name="holder")
    (span,) = spans.named(WAIT)
    assert span.attributes is not None
    assert spans.ancestors(span) == ["waiting"]
    assert span.attributes["sa_sqlite_pool.waits_for"] == "turn"
    assert span.attributes["db.namespace"] == "app.db"
    assert "holder" in str(span.attributes["sa_sqlite_pool.holder.task"])
    assert str(span.attributes["sa_sqlite_pool.holder.asked_at"]).startswith(
        "test_tracing_waits.py:"
    )
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time < seen[0] < span.end_time
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("wait", [read, lambda db: db.run_read(lambda _: None)])
async def test_a_wait_for_a_reader(
    path: Path, spans: Spans, traced: Traced, wait: Callable[..., Any]
) -> None:
    """All readers are in use."""
    async with SQLiteDatabase(path, readers=1) as db:
        traced(db)
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
            task = asyncio.create_task(spans.under("waiting", lambda: wait(db)))
            await until_waiting(1, db.reader_engine.pool)
        await task
    (span,) = spans.named(WAIT)
    assert span.attributes is not None
    assert spans.ancestors(span) == ["waiting"]
    assert span.attributes["sa_sqlite_pool.waits_for"] == "connection"
    assert str(span.attributes["sa_sqlite_pool.holder.asked_at"]).startswith(
        "test_tracing_waits.py:"
    )


async def test_a_wait_of_a_swap_in_connection(
    swap_in: AsyncEngine, path: Path, spans: Spans, traced: Traced
) -> None:
    """It waits for the turn in the middle of a statement."""
    await create_items(swap_in)
    traced(swap_in)

    async def write() -> None:
        async with swap_in.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        task = asyncio.create_task(spans.under("waiting", write))
        await until_waiting(1, turn_of(path))
    await task
    (span,) = spans.named(WAIT)
    assert spans.ancestors(span) == ["waiting"]


@pytest.mark.parametrize("wait", [update, run_update])
async def test_a_wait_for_another_process(
    db: SQLiteDatabase, path: Path, spans: Spans, traced: Traced, wait: Callable[..., Any]
) -> None:
    """That process holds the turn, and is named as far as the system allows."""
    await create_items(db.writer_engine)
    traced(db)
    with other_process(path) as request:
        task = asyncio.create_task(spans.under("waiting", lambda: wait(db)))
        while not blocked(path):
            await asyncio.sleep(0)
        request.release()
        await task
    (span,) = spans.named(WAIT)
    assert span.attributes is not None
    assert span.attributes["sa_sqlite_pool.waits_for"] == "process"
    assert span.attributes["sa_sqlite_pool.holder.process"]
    assert spans.ancestors(span) == ["waiting"]


async def test_a_wait_in_vain(path: Path, spans: Spans, traced: Traced) -> None:
    """The span of a wait that times out has the error."""
    async with SQLiteDatabase(path, readers=1, write_timeout=0.01, read_timeout=0.01) as db:
        await create_items(db.writer_engine)
        traced(db)
        async with db.write() as writing, db.read() as reading:
            await writing.execute(UPDATE_FIRST)
            await reading.execute(text("SELECT 1"))
            for wait in (update, run_update):
                with pytest.raises(WriteTimeout):
                    await asyncio.create_task(wait(db))  # type: ignore[arg-type]
            for wait in (read, lambda db: db.run_read(lambda _: None)):
                with pytest.raises(ReadTimeout):
                    await asyncio.create_task(wait(db))
    found = spans.named(WAIT)
    assert [span.attributes["error.type"] for span in found if span.attributes] == [
        *("WriteTimeout", "WriteTimeout", "ReadTimeout", "ReadTimeout")
    ]
    assert {span.status.status_code for span in found} == {StatusCode.ERROR}


async def test_a_wait_that_is_cancelled(
    db: SQLiteDatabase, path: Path, spans: Spans, traced: Traced
) -> None:
    """It has a span, too, without an error status."""
    await create_items(db.writer_engine)
    traced(db)
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        task = asyncio.create_task(update(db))
        await until_waiting(1, turn_of(path))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (span,) = spans.named(WAIT)
    assert span.attributes is not None
    assert span.attributes["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.UNSET


async def test_no_span_without_a_wait(db: SQLiteDatabase, spans: Spans, traced: Traced) -> None:
    """There is none through any door of the facade, nor for the keeper of the log."""
    await create_items(db.writer_engine)
    traced(db)
    await update(db)
    await run_update(db)
    await read(db)
    await db.run_read(lambda _: None)
    await db.checkpoint("truncate")
    assert spans.named(WAIT) == []


@pytest.mark.usefixtures("statements_traced")
async def test_both_together(path: Path, spans: Spans, traced: Traced) -> None:
    """A checkout waits within the instrumentation's ``connect`` span, but statements do not."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        traced(db)
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            task = asyncio.create_task(spans.under("work", lambda: update(db)))
            await until_waiting(1, turn_of(path))
        await task
    (wait,) = spans.named(WAIT)
    assert spans.ancestors(wait) == ["connect", "work"]
    assert spans.ancestors(spans.named("UPDATE")[-1]) == ["work"]
