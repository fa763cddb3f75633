"""OpenTelemetry: statements as its SDK collects them, and databases that are opened and closed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase
from sa_sqlite_pool.stats.figures import FIGURES
from tests.conftest import MakeEngine
from tests.helpers import ENDLESS, Item, create_items, until

pytest.importorskip("opentelemetry.sdk")


from sa_sqlite_pool.integrations.opentelemetry import instrument
from sa_sqlite_pool.integrations.sources import pool_of
from tests.integrations.collected import (
    CONNECTION,
    DURATION,
    Metrics,
    Record,
    add_one,
    metrics,
    read,
    record,
)

__all__ = ["metrics", "record"]


async def test_statements_by_operation(
    db: SQLiteDatabase, metrics: Metrics, record: Record
) -> None:
    """ORM, Core and text are counted, in sessions and functions; a batch is one operation."""
    await create_items(db.writer_engine)
    record(db)
    async with db.write() as session:
        session.add(Item(id=10))
        await session.flush()
        await session.execute(update(Item).values(amount=1))
        await session.execute(text("  delete from items where id = 10"))
        many = [{"id": 20}, {"id": 21}]
        await session.execute(text("INSERT INTO items (id, amount) VALUES (:id, 0)"), many)
        one = [{"id": 22}]
        await session.execute(text("INSERT INTO items (id, amount) VALUES (:id, 0)"), one)
    counted = select(func.count()).select_from(Item).cte()
    async with db.read() as session:
        await session.execute(select(counted))
        await session.execute(text("WITH one AS (SELECT 1) SELECT * FROM one"))
    await db.run_read(lambda session: session.scalars(select(Item)).all())
    await db.run_write(lambda session: session.execute(insert(Item).values(id=30)) and None)
    counts: dict[str | None, int] = {
        point.attributes.get("db.operation.name"): point.count
        for point in metrics.points()[DURATION]
    }
    assert counts == {
        "INSERT": 3,
        "UPDATE": 1,
        "DELETE": 1,
        "BATCH INSERT": 1,
        "SELECT": 2,
        None: 1,
    }
    point = metrics.point(DURATION, name="DELETE")
    assert point.attributes["db.system.name"] == "sqlite"
    assert point.attributes["db.namespace"] == "app.db"
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


@pytest.mark.parametrize(
    "sql", ["/*route='/items'*/ VALUES (1)", "-- of a report\n\t/* a\nb *//* c */VALUES (1)"]
)
async def test_comments_before_a_statement(
    db: SQLiteDatabase, metrics: Metrics, record: Record, sql: str
) -> None:
    """The operation is the first word after them."""
    record(db)
    async with db.read() as session:
        await session.execute(text(sql))
    assert metrics.point(DURATION).attributes["db.operation.name"] == "VALUES"


async def test_failed_statements_have_the_class_of_their_error(
    db: SQLiteDatabase, metrics: Metrics, record: Record
) -> None:
    """It is SQLite's result code if Python reports it, and the exception's name otherwise."""
    await create_items(db.writer_engine)
    record(db)
    with pytest.raises(IntegrityError):
        async with db.write() as session:
            await session.execute(insert(Item).values(id=1))
    with pytest.raises(StatementError):
        async with db.read() as session:
            await session.execute(text("SELECT :value"), {"value": object()})
    failed, unbound = (metrics.point(DURATION, name=name) for name in ("INSERT", "SELECT"))
    if sys.version_info >= (3, 11):
        assert failed.attributes["error.type"] == "SQLITE_CONSTRAINT_PRIMARYKEY"
        assert failed.attributes["db.response.status_code"] == "SQLITE_CONSTRAINT_PRIMARYKEY"
    else:
        assert failed.attributes["error.type"] == "IntegrityError"
    assert unbound.attributes["error.type"].endswith("Error")
    assert (failed.count, unbound.count) == (1, 1)


@pytest.mark.needs_thread
async def test_a_cancelled_statement_counts(
    db: SQLiteDatabase, metrics: Metrics, record: Record
) -> None:
    """Its error is the cancellation."""
    record(db)

    async def endless() -> None:
        async with db.read() as session:
            await session.execute(ENDLESS)

    task = asyncio.create_task(endless())
    await until(lambda: db.statistics().reading)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert metrics.point(DURATION).attributes["error.type"] == "CancelledError"


async def test_a_database_before_and_after_it_is_open(
    path: Path, metrics: Metrics, record: Record
) -> None:
    """Nothing is collected at those times, and nothing is opened."""
    db = SQLiteDatabase(path)
    record(db)
    assert metrics.names() == set()
    assert not path.exists()
    async with db:
        await db.run_write(lambda session: session.execute(text("CREATE TABLE t (x)")) and None)
        assert "sa_sqlite_pool.turn.waiting" in metrics.names()
    assert {name for name in metrics.names() if "turn" in name} == set()


async def test_several_databases(
    db: SQLiteDatabase, tmp_path: Path, metrics: Metrics, record: Record
) -> None:
    """They share instruments and differ in the namespace; each is instrumented once."""
    async with SQLiteDatabase(tmp_path / "other.db", readers=7) as other:
        first, _ = record(db), record(other)
        assert metrics.value(f"{CONNECTION}max", name="app.db/reader") == 4
        assert metrics.value(f"{CONNECTION}max", name="other.db/reader") == 7
        with pytest.raises(ConfigurationError, match="instrumented already"):
            instrument(other)  # for other providers
        first.uninstrument()
        assert metrics.value(f"{CONNECTION}max", name="other.db/reader") == 7


async def test_instrumented_where_it_is_opened(
    path: Path, metrics: Metrics, record: Record
) -> None:
    """In a lifespan that runs again, before or after opening: it is recorded once."""
    db = SQLiteDatabase(path)
    first = record(db)
    for _ in range(2):
        assert record(db) is first
        async with db:
            assert record(db) is first
            assert metrics.value(f"{CONNECTION}max", name="app.db/reader") == 4
    first.uninstrument()
    assert record(db) is not first


def test_global_providers_that_are_set_later(tmp_path: Path) -> None:
    """A module instruments its database on import, and the program sets the providers later."""
    program = """
import asyncio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import text
from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.integrations.opentelemetry import instrument
one, two = SQLiteDatabase("one.db"), SQLiteDatabase("two.db")
instrument(one)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
instrument(two, metrics.get_meter_provider())
async def main():
    async with one, two:
        for db in one, two:
            async with db.read() as session:
                await session.execute(text("SELECT 1"))
        (found,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
        for metric in found.metrics:
            if metric.name in {"db.client.operation.duration", "sa_sqlite_pool.turn.waiting"}:
                print(metric.name, *(p.attributes["db.namespace"] for p in metric.data.data_points))
asyncio.run(main())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == [
        "db.client.operation.duration one.db two.db",
        "sa_sqlite_pool.turn.waiting one.db two.db",
    ]


async def test_uninstrument(
    db: SQLiteDatabase, metrics: Metrics, path: Path, record: Record
) -> None:
    """No listener, observer or sample remains, not even after ``dispose()``."""
    await create_items(db.writer_engine)
    instrumentation = record(db)
    await add_one(db)
    await db.reader_engine.dispose()
    await read(db)
    instrumentation.uninstrument()
    instrumentation.uninstrument()
    before = metrics.point(DURATION, name="UPDATE").count
    await add_one(db)
    await read(db)
    assert metrics.point(DURATION, name="UPDATE").count == before
    assert "sa_sqlite_pool.turn.waiting" not in metrics.names()
    for engine in (db.reader_engine, db.writer_engine):
        assert pool_of(engine.sync_engine).wait_watch.observer is None
        assert not engine.sync_engine._has_events or not list(
            engine.sync_engine.dispatch.before_cursor_execute
        )
        assert not list(engine.pool.dispatch.checkout)
    record(db)


async def test_a_closed_database_is_not_kept(path: Path, metrics: Metrics, record: Record) -> None:
    """The next database that is instrumented replaces it."""
    async with SQLiteDatabase(path) as db:
        instrument(db, metrics.provider)
    gone = weakref.ref(db)
    del db
    async with SQLiteDatabase(path) as successor:
        record(successor)
        gc.collect()
        assert gone() is None
        assert metrics.value("sa_sqlite_pool.turn.waiting") == 0


async def test_opened_again_it_is_recorded_again(
    path: Path, metrics: Metrics, record: Record
) -> None:
    """This holds even if another database was instrumented meanwhile."""
    db = SQLiteDatabase(path)
    record(db)
    async with db:
        await create_items(db.writer_engine)
    async with SQLiteDatabase(path.with_name("other.db")) as other:
        record(other)
    async with db:
        await add_one(db)
        assert metrics.value("sa_sqlite_pool.turn.waiting") == 0
    assert metrics.point(DURATION, name="UPDATE").count == 1


async def test_other_pools_are_refused(
    make_engine: MakeEngine, metrics: Metrics, record: Record
) -> None:
    """They are refused before anything is recorded."""
    with pytest.raises(ConfigurationError, match="poolclass=SQLitePool"):
        record(make_engine())


async def test_a_collection_reads_the_statistics_once(
    db: SQLiteDatabase, metrics: Metrics, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All instruments of a collection use the same snapshot; the next collection has a new one."""
    taken = []
    original = SQLiteDatabase.statistics

    def statistics(self: SQLiteDatabase) -> Any:
        taken.append(self)
        return original(self)

    monkeypatch.setattr(SQLiteDatabase, "statistics", statistics)
    record(db)
    metrics.points()
    metrics.points()
    assert len(taken) == 2


async def test_every_figure_has_an_instrument(
    db: SQLiteDatabase, metrics: Metrics, record: Record
) -> None:
    """It has its own name and unit, or those of the conventions."""
    await create_items(db.writer_engine)
    record(db)
    await read(db)
    units = metrics.units()
    by_convention = {
        "connections": "count",
        "connections.max": "max",
        "connections.waiting": "pending_requests",
        "connections.wait": "wait_time",
    }
    for figure in FIGURES:
        if figure.name in by_convention:
            name = f"{CONNECTION}{by_convention[figure.name]}"
            assert units[name] in {figure.unit, "{request}"}
        elif figure.kind.value != "histogram":
            assert units[f"sa_sqlite_pool.{figure.name}"] == figure.unit
