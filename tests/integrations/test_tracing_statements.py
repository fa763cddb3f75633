"""Spans of statements, by OpenTelemetry's own instrumentation of SQLAlchemy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

import sa_sqlite_pool
from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from tests.helpers import UPDATE_FIRST, Item, create_items

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.instrumentation.sqlalchemy")

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.trace import StatusCode

from tests.integrations.spans import Spans, Work, spans, statements_traced

__all__ = ["spans", "statements_traced"]


@pytest.mark.usefixtures("statements_traced")
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_statements_of_every_door(path: Path, spans: Spans, placement: str) -> None:
    """A statement's span is a child of the span of the task that executes it."""

    def change(session: Session) -> None:
        session.execute(UPDATE_FIRST)

    async with SQLiteDatabase(path, placement=placement) as db:
        await create_items(db.writer_engine)
        prepared = db.prepare(select(Item.amount))

        async def write() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        async def read() -> None:
            async with db.read() as session:
                await session.execute(select(Item))

        async def routed() -> None:
            async with db.sessionmaker() as session:
                await session.execute(select(Item))
                await session.execute(UPDATE_FIRST)
                await session.commit()

        doors: list[tuple[str, Work, int, int]] = [
            ("write", write, 0, 1),
            ("read", read, 1, 0),
            ("routed", routed, 1, 1),
            ("run_write", lambda: db.run_write(change), 0, 1),
            ("run_write_core", lambda: db.run_write_core(change), 0, 1),  # type: ignore[arg-type]
            ("run_read", lambda: db.run_read(lambda s: s.scalars(select(Item)).all()), 1, 0),
            ("prepared", prepared.all, 1, 0),
            ("prepared again", prepared.all, 1, 0),
        ]
        for door, work, selects, updates in doors:
            spans.clear()
            await spans.under(door, work)
            found = [spans.named(verb) for verb in ("SELECT", "UPDATE")]
            assert [len(one) for one in found] == [selects, updates], door
            for span in (*found[0], *found[1]):
                assert spans.ancestors(span) == [door]


@pytest.mark.usefixtures("statements_traced")
@pytest.mark.parametrize("ours", [False, True])
async def test_statements_of_engines_of_ones_own(path: Path, spans: Spans, ours: bool) -> None:
    """They are created by SQLAlchemy's function or this package's; streams are traced, too."""
    module: Any = sa_sqlite_pool if ours else sqlalchemy.ext.asyncio
    options = {} if ours else {"poolclass": SQLitePool}
    engine: AsyncEngine = module.create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    await create_items(engine)

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            async for _ in await connection.stream(text("SELECT * FROM items")):
                pass
            with pytest.raises(OperationalError):
                await connection.execute(text("SELECT nothing"))

    await spans.under("work", work)
    (update,), (streamed, failed) = spans.named("UPDATE"), spans.named("SELECT")
    for span in (update, streamed, failed):
        assert spans.ancestors(span) == ["work"]
    assert failed.status.status_code is StatusCode.ERROR
    await engine.dispose()


@pytest.mark.usefixtures("statements_traced")
async def test_a_span_within_a_function(path: Path, spans: Spans) -> None:
    """In the thread of ``run_read()`` and ``run_write()``, statements are children of that span."""

    def work(session: Session) -> None:
        with spans.tracer.start_as_current_span("inner"):
            session.execute(text("SELECT 1"))

    async with SQLiteDatabase(path) as db:
        for run in (db.run_read, db.run_write):
            spans.clear()
            await spans.under("outer", lambda run=run: run(work))  # type: ignore[misc]
            (span,) = spans.named("SELECT")
            assert spans.ancestors(span) == ["inner", "outer"]


async def test_engines_that_are_instrumented_later(db: SQLiteDatabase, spans: Spans) -> None:
    """They are passed to the instrumentation, as its documentation says."""
    engines = [db.writer_engine.sync_engine, db.reader_engine.sync_engine]
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(engines=engines, tracer_provider=spans.provider, skip_dep_check=True)
    try:
        await spans.under("work", lambda: db.run_read(lambda s: s.execute(text("SELECT 1")).all()))
    finally:
        instrumentor.uninstrument()
    (span,) = spans.named("SELECT")
    assert spans.ancestors(span) == ["work"]


def test_instrumented_before_the_package_is_imported(tmp_path: Path) -> None:
    """The order of imports makes no difference, here and with SQLAlchemy's own imports."""
    program = """
import asyncio
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
SQLAlchemyInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
from sqlalchemy import text
from sa_sqlite_pool import SQLiteDatabase
async def main():
    async with SQLiteDatabase("app.db") as db, db.read() as session:
        await session.execute(text("SELECT 1"))
asyncio.run(main())
print(*(span.name for span in exporter.get_finished_spans() if span.name != "connect"))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("SELECT app.db\n", "")
