"""OpenTelemetry: the metrics that its SDK collects."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import ConfigurationError, ReadTimeout, SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.stats.figures import FIGURES
from tests.conftest import MakeEngine
from tests.helpers import ENDLESS, UPDATE_FIRST, Item, create_items, turn_of, until, until_waiting

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from sa_sqlite_pool.integrations.opentelemetry import Instrumentation, instrument
from sa_sqlite_pool.turn import observers


def short_keys(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes by the last words of their names."""
    return {key.rpartition(".")[2]: value for key, value in attributes.items()}


class Metrics:
    """What an in-memory reader of the SDK has collected."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        scopes = [] if data is None else data.resource_metrics[0].scope_metrics
        return {m.name: list(m.data.data_points) for scope in scopes for m in scope.metrics}

    def point(self, name: str, /, **attributes: str) -> Any:
        """Return the only point of a metric with these attributes, given by their last words."""
        found = [
            point
            for point in self.points().get(name, [])
            if attributes.items() <= short_keys(point.attributes).items()
        ]
        assert len(found) == 1, (name, found)
        return found[0]

    def value(self, name: str, /, **attributes: str) -> float:
        return float(self.point(name, **attributes).value)

    def names(self) -> set[str]:
        return {name for name, points in self.points().items() if points}

    def units(self) -> dict[str, str | None]:
        data = self._reader.get_metrics_data()
        assert data is not None
        scopes = data.resource_metrics[0].scope_metrics
        return {metric.name: metric.unit for scope in scopes for metric in scope.metrics}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


Record = Callable[..., Instrumentation]


@pytest.fixture
def record(metrics: Metrics) -> Iterator[Record]:
    """``instrument()`` with the SDK's in-memory reader, undone afterwards."""
    made = []

    def instrumented(monitored: Any, **options: Any) -> Instrumentation:
        made.append(instrument(monitored, metrics.provider, **options))
        return made[-1]

    yield instrumented
    for one in made:
        one.uninstrument()


async def add_one(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


DURATION = "db.client.operation.duration"
CONNECTION = "db.client.connection."


async def test_statements_by_operation(
    db: SQLiteDatabase, metrics: Metrics, record: Record
) -> None:
    """Of the ORM, of Core and as text, in sessions and in functions; a batch is one operation."""
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


async def test_failed_statements_have_the_class_of_their_error(
    db: SQLiteDatabase, metrics: Metrics, record: Record
) -> None:
    """SQLite's result code where Python tells it, and the name of the exception otherwise."""
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
    """With the cancellation as its error."""
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


async def test_connections_by_the_conventions(path: Path, metrics: Metrics, record: Record) -> None:
    """Those that there are, may be, are waited for; and how long each thing took."""
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


async def read(db: SQLiteDatabase) -> None:
    async with db.read() as session:
        await session.execute(text("SELECT 1"))


async def test_time_outs(path: Path, metrics: Metrics, record: Record) -> None:
    """In every way to wait for a connection: sessions and functions."""
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
    """A histogram of how long they were; none for a turn that was free."""
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


async def test_a_database_before_and_after_it_is_open(
    path: Path, metrics: Metrics, record: Record
) -> None:
    """Nothing is collected then, and nothing is opened."""
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
    """One set of instruments, told apart by the namespace; each is instrumented once."""
    async with SQLiteDatabase(tmp_path / "other.db", readers=7) as other:
        first, _ = record(db), record(other)
        assert metrics.value(f"{CONNECTION}max", name="app.db/reader") == 4
        assert metrics.value(f"{CONNECTION}max", name="other.db/reader") == 7
        with pytest.raises(ConfigurationError, match="instrumented already"):
            record(other)
        first.uninstrument()
        assert metrics.value(f"{CONNECTION}max", name="other.db/reader") == 7


async def test_uninstrument(
    db: SQLiteDatabase, metrics: Metrics, path: Path, record: Record
) -> None:
    """Nothing is left: no listener, no observer, no sample; also after ``dispose()``."""
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
    assert not observers.waits_are_observed()
    for engine in (db.reader_engine, db.writer_engine):
        assert not engine.sync_engine._has_events or not list(
            engine.sync_engine.dispatch.before_cursor_execute
        )
        assert not list(engine.pool.dispatch.checkout)
    record(db)


async def test_a_closed_database_is_not_kept(path: Path, metrics: Metrics, record: Record) -> None:
    """The next one that is instrumented takes its place."""
    async with SQLiteDatabase(path) as db:
        instrument(db, metrics.provider)
    gone = weakref.ref(db)
    del db
    async with SQLiteDatabase(path) as successor:
        record(successor)
        gc.collect()
        assert gone() is None
        assert metrics.value("sa_sqlite_pool.turn.waiting") == 0


async def test_other_pools_are_refused(
    make_engine: MakeEngine, metrics: Metrics, record: Record
) -> None:
    """Before anything is recorded."""
    with pytest.raises(ConfigurationError, match="poolclass=SQLitePool"):
        record(make_engine())


async def test_a_collection_reads_the_statistics_once(
    db: SQLiteDatabase, metrics: Metrics, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All instruments of a collection have the same snapshot; the next has its own."""
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
    """By its own name and unit, or by the conventions'."""
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


async def test_waits_of_functions_that_share_a_commit(
    db: SQLiteDatabase, metrics: Metrics, path: Path, record: Record
) -> None:
    """Each call has waited, although they stand in line together."""
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
