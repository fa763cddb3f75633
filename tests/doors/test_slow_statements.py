"""Statements that run for long are logged with their task and line."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool, StatementTimeout
from sa_sqlite_pool.execution.jobs import Stage
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.reporting.events import SlowStatement
from sa_sqlite_pool.reporting.repeats import Repeats
from tests.conftest import MakeEngine
from tests.helpers import ENDLESS, Item, create_items, turn_of, until, until_waiting
from tests.reporting.records import Records

READ = text("SELECT id FROM items WHERE id < 3")
WRITE = text("UPDATE items SET amount = 7 WHERE id < 3")


@pytest.fixture
def records() -> Iterator[Records]:
    with Records() as kept:
        yield kept


def line(function: Callable[..., object]) -> str:
    """Return the line where ``function`` executes, such as ``test_slow_statements.py:31``."""
    lines, first = inspect.getsourcelines(function)
    (number,) = (first + at for at, one in enumerate(lines) if "# here" in one)
    return f"{Path(__file__).name}:{number}"


class Ways:
    """The ways to execute a statement."""

    def __init__(self, db: SQLiteDatabase, swap_in: AsyncEngine) -> None:
        self.db, self.swap_in = db, swap_in
        self.prepared_read = db.prepare(READ)

    async def read(self) -> None:
        async with self.db.read() as session:
            await session.execute(READ)  # here

    async def write(self) -> None:
        async with self.db.write() as session:
            await session.execute(WRITE)  # here

    async def stream(self) -> None:
        async with self.db.read() as session:
            rows = await session.stream(READ, execution_options={"yield_per": 1})  # here
            assert len(await rows.all()) == 2

    async def swapped_in(self) -> None:
        async with self.swap_in.begin() as connection:
            await connection.execute(WRITE)  # here

    async def run_sync(self) -> None:
        async with self.swap_in.begin() as connection:
            await connection.run_sync(lambda one: one.execute(WRITE))  # here

    async def prepared(self) -> None:
        assert len(await self.prepared_read.all()) == 2  # here

    async def run_read(self) -> None:
        def work(session: Any) -> None:
            session.execute(READ).all()  # here

        await self.db.run_read(work)

    async def run_read_stream(self) -> None:
        def work(session: Any) -> None:
            session.execute(READ, execution_options={"yield_per": 1}).all()  # here

        await self.db.run_read(work)

    async def run_write(self) -> None:
        def work(session: Any) -> None:
            session.execute(WRITE)  # here

        await self.db.run_write(work)

    async def run_write_core(self) -> None:
        def work(connection: Any) -> None:
            connection.execute(WRITE)  # here

        await self.db.run_write_core(work)


async def passed(seconds: float) -> None:
    """Let the loop run for this time, by the clock that times statements."""
    end = time.perf_counter() + seconds
    await until(lambda: time.perf_counter() >= end)


async def nested(way: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await ``way()``, so that the statement is not in the task's own coroutine."""
    await way()


WAYS = [name for name in vars(Ways) if not name.startswith("_")]


@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
@pytest.mark.parametrize("way", WAYS)
async def test_each_way(
    path: Path,
    make_engine: MakeEngine,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    placement: str,
) -> None:
    """Each is logged wherever it runs: in a thread at first, and then on the loop."""
    monkeypatch.setattr(Repeats, "admit", lambda *_: 0)
    options = {"slow_statement_warning": 0.0, "placement": placement}
    async with SQLiteDatabase(path, **options) as db:  # type: ignore[arg-type]
        await create_items(db.writer_engine)
        ways = Ways(db, make_engine(SQLitePool, **options))
        for times in range(1, 6):
            await asyncio.create_task(nested(getattr(ways, way)), name="request-7")
            of_task = [one for one in records.of(SlowStatement) if one["task"] == "request-7"]
            found = [one for one in of_task if one["sql"] in {READ.text, WRITE.text}]
            assert len(found) == times
            assert "fetching" not in {one["sql"] for one in of_task}
    assert {one["asked_at"] for one in found} == {line(getattr(Ways, way))}
    assert all(0 <= one["seconds_run"] < 30 for one in found)
    assert found[0]["message"].startswith("a statement on app.db ran for 0.0")
    assert f"executed by task 'request-7' at {found[0]['asked_at']}" in found[0]["message"]


async def test_what_no_line_of_a_function_executes(path: Path, records: Records) -> None:
    """For a flush at its end, or a function in C, the line is the one that runs the closure."""

    async def add() -> None:
        await db.run_write(lambda session: session.add(Item(id=7)))  # here

    async def read() -> None:
        await db.run_read(methodcaller("scalar", READ))  # here

    async with SQLiteDatabase(path, slow_statement_warning=0.0) as db:
        await create_items(db.writer_engine)
        for way in (add, read):
            await asyncio.create_task(nested(way), name="request-7")
    added, found = (one for one in records.of(SlowStatement) if one["task"] == "request-7")
    assert added["sql"].startswith("INSERT INTO items")
    assert found["sql"] == READ.text
    assert (added["asked_at"], found["asked_at"]) == (line(add), line(read))


@pytest.mark.parametrize("limit", [None, 60.0])
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_quick_ones(
    path: Path, make_engine: MakeEngine, records: Records, limit: float | None, placement: str
) -> None:
    """Short statements are not logged, and by default none is."""
    options = {"slow_statement_warning": limit, "placement": placement}
    async with SQLiteDatabase(path, **options) as db:  # type: ignore[arg-type]
        await create_items(db.writer_engine)
        ways = Ways(db, make_engine(SQLitePool, **options))
        for way in WAYS:
            for _ in range(5):
                await getattr(ways, way)()
    assert records.lines == []


async def test_its_wait_does_not_count(
    path: Path, make_engine: MakeEngine, records: Records
) -> None:
    """A statement that waits for the turn is not yet running."""
    engine = make_engine(SQLitePool, slow_statement_warning=0.05)
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with db.write() as session:
            await session.execute(WRITE)
            writing = asyncio.create_task(Ways(db, engine).swapped_in())
            await until_waiting(1, turn_of(path))
            await passed(0.06)
        await writing
    assert records.lines == []


@pytest.mark.needs_thread
async def test_one_that_is_cancelled(path: Path, records: Records) -> None:
    """A client has disconnected, and its statement may be the reason."""

    async def read() -> None:
        async with db.read() as session:
            await session.execute(ENDLESS)  # here

    async with SQLiteDatabase(path, slow_statement_warning=0.0) as db:
        task = asyncio.create_task(read(), name="request-7")
        pool = db.reader_engine.pool
        assert isinstance(pool, FairPool)

        def runs() -> bool:
            connections = [checkout.connection for checkout in pool.checkouts]
            jobs = [one.worker._last_job for one in connections if one is not None]
            return any(job is not None and job.stage is Stage.RUNNING for job in jobs)

        await until(runs)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    (found,) = (one for one in records.of(SlowStatement) if one["sql"] == ENDLESS.text)
    assert (found["task"], found["asked_at"]) == ("request-7", line(read))


@pytest.mark.needs_thread
async def test_one_that_takes_too_long(path: Path, records: Records) -> None:
    """The error contains the same information, but the log has it, too."""
    limits = {"slow_statement_warning": 0.02, "statement_timeout": 0.05}
    async with SQLiteDatabase(path, **limits) as db:  # type: ignore[arg-type]
        with pytest.raises(StatementTimeout):
            await db.run_read(lambda session: session.execute(ENDLESS).all())
        async with db.read() as session:
            with pytest.raises(StatementTimeout):
                await session.execute(text(f"{ENDLESS.text} "))
    assert len(records.of(SlowStatement)) == 2


async def test_once_a_text_and_minute(path: Path, records: Records) -> None:
    """Repetitions are counted by the engine's clock, and long texts are truncated."""
    long = text(f"SELECT {', '.join(map(str, range(1000)))}")
    async with SQLiteDatabase(path, slow_statement_warning=0.0) as db:
        pool, now = db.reader_engine.pool, 0.0
        assert isinstance(pool, FairPool)
        pool._connector.slow_statements._repeats._clock = lambda: now
        for now in (0.0, 1.0, 59.0, 60.0):  # noqa: B007 - the clock reads it
            async with db.read() as session:
                await session.execute(long)
        async with db.read() as session:
            await session.execute(text(f"{long.text}, 1000"))
    found = [one for one in records.of(SlowStatement) if one["sql"].startswith("SELECT 0, 1, 2")]
    assert [one["left_out"] for one in found] == [0, 2, 0]
    assert len(found[0]["sql"]) == 120
    assert found[1]["message"].endswith("; 2 more since the last such warning were not logged")
