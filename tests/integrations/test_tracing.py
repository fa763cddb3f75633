"""Spans: of statements by OpenTelemetry's own instrumentation, and of waits in line by ours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

import sa_sqlite_pool
from sa_sqlite_pool import ReadTimeout, SQLiteDatabase, SQLitePool, WriteTimeout
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, Item, create_items, turn_of, until_waiting
from tests.turn.locks import blocked, other_process

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.instrumentation.sqlalchemy")

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sa_sqlite_pool.integrations.opentelemetry import instrument

Work = Callable[[], Awaitable[Any]]


class Spans:
    """The spans that the SDK's in-memory exporter was given."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    async def under(self, name: str, work: Work) -> Any:
        """Do some work in a task, under a span of the application's."""

        async def task() -> Any:
            with self.tracer.start_as_current_span(name):
                return await work()

        return await asyncio.create_task(task())

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Return spans by the first word of their names: of a statement, the verb."""
        return [span for span in self.all() if span.name.split()[0] == name]

    def ancestors(self, span: ReadableSpan) -> list[str]:
        """Return the names of the spans around ``span``, the innermost first."""
        by_id = {one.context.span_id: one for one in self.all() if one.context is not None}
        found = []
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            found.append(span.name)
        return found

    def clear(self) -> None:
        self._exporter.clear()


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def statements_traced(spans: Spans) -> Iterator[None]:
    """OpenTelemetry's own instrumentation, of all engines that are made from now on."""
    instrumentor = SQLAlchemyInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider, skip_dep_check=True)
    yield
    instrumentor.uninstrument()


@pytest.fixture
def traced(spans: Spans) -> Iterator[Callable[[Any], None]]:
    """``traced(db)``: waits become spans; undone afterwards."""
    made = []
    yield lambda monitored: made.append(instrument(monitored, tracer_provider=spans.provider))
    for one in made:
        one.uninstrument()


# -- statements ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("statements_traced")
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_statements_of_every_door(path: Path, spans: Spans, placement: str) -> None:
    """The span of the task that executes a statement is around the statement's."""

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
    """Made by SQLAlchemy's function, or by this package's of the same name; streams, too."""
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
    """In the thread of ``run_read()`` and ``run_write()``, a span is around its statements."""

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
    """Given to the instrumentation, as its documentation says."""
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


# -- waits --------------------------------------------------------------------------------------

Traced = Callable[[Any], None]
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
    """In the span of the task that has waited, as long as the wait; it tells who had the turn."""
    await create_items(db.writer_engine)
    traced(db)

    async def hold() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            task = asyncio.create_task(spans.under("waiting", lambda: wait(db)))
            await until_waiting(1, turn_of(path))
            await asyncio.sleep(0.02)
        await task

    await asyncio.create_task(hold(), name="holder")
    (span,) = spans.named(WAIT)
    assert span.attributes is not None
    assert spans.ancestors(span) == ["waiting"]
    assert span.attributes["sa_sqlite_pool.waits_for"] == "turn"
    assert span.attributes["db.namespace"] == "app.db"
    assert "holder" in str(span.attributes["sa_sqlite_pool.holder.task"])
    assert str(span.attributes["sa_sqlite_pool.holder.asked_at"]).startswith("test_tracing.py:")
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 20_000_000
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("wait", [read, lambda db: db.run_read(lambda _: None)])
async def test_a_wait_for_a_reader(
    path: Path, spans: Spans, traced: Traced, wait: Callable[..., Any]
) -> None:
    """Where all of them are in use."""
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
    assert str(span.attributes["sa_sqlite_pool.holder.asked_at"]).startswith("test_tracing.py:")


async def test_a_wait_of_a_swap_in_connection(
    swap_in: AsyncEngine, path: Path, spans: Spans, traced: Traced
) -> None:
    """For the turn, in the middle of a statement."""
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


async def test_a_wait_for_another_process(
    make_engine: MakeEngine, path: Path, spans: Spans, traced: Traced
) -> None:
    """It has the turn, and is named as far as the system tells."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    traced(engine)

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    with other_process(path) as request:
        task = asyncio.create_task(spans.under("waiting", write))
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
    """Its span has the error; a cancellation is none of the wait's."""
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
    """It has a span, too, which is no error."""
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
    """Through every door of the facade; nor of the keeper of the log."""
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
    """A checkout waits within the instrumentation's span ``connect``; statements are beside it."""
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
