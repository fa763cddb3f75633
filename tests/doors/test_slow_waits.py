"""Long waits are logged with their task, their line, and what was in the way."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, SQLitePool, WriterPool, WriteTimeout
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.reporting.events import SlowWait
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until, until_waiting
from tests.reporting.records import Records
from tests.turn.file_turns import process, taken

READ = text("SELECT id FROM items")


@pytest.fixture
def records() -> Iterator[Records]:
    with Records() as kept:
        yield kept


@asynccontextmanager
async def one_reader(path: Path, **options: Any) -> AsyncIterator[SQLiteDatabase]:
    """Yield a database with one reader, and a limit that every wait exceeds."""
    async with SQLiteDatabase(path, readers=1, **{"slow_wait_warning": 0.0, **options}) as db:
        await create_items(db.writer_engine)
        yield db


async def laps() -> None:
    """Let due timers run."""
    for _ in range(5):
        await asyncio.sleep(0)


def line(function: Callable[..., object], part: str) -> str:
    """Return the line where ``function`` contains ``part``, such as ``test_slow_waits.py:31``."""
    lines, first = inspect.getsourcelines(function)
    (number,) = (first + at for at, one in enumerate(lines) if part in one)
    return f"{Path(__file__).name}:{number}"


async def behind(
    holding: Callable[[asyncio.Event], Coroutine[Any, Any, None]], waiting: Any, way: Any
) -> Any:
    """Return the result of ``way()``, which waits behind ``holding()`` for long enough."""
    leave = asyncio.Event()
    holder = asyncio.create_task(holding(leave), name="import-42")
    await until(waiting.locked)
    waiter = asyncio.create_task(way(), name="request-7")
    await until_waiting(1, waiting)
    await laps()
    leave.set()
    await holder
    return await waiter


# -- each door -------------------------------------------------------------------------------------


class Writes:
    """The ways to write."""

    def __init__(self, db: SQLiteDatabase, swap_in: AsyncEngine) -> None:
        self.db, self.swap_in = db, swap_in

    async def hold(self, leave: asyncio.Event) -> None:
        async with self.db.write() as session:
            await session.execute(UPDATE_FIRST)
            await leave.wait()

    async def write(self) -> None:
        async with self.db.write() as session:
            await session.execute(UPDATE_FIRST)  # waits

    async def begin(self) -> None:
        async with self.db.writer_engine.begin() as connection:  # waits
            await connection.execute(UPDATE_FIRST)

    async def routed(self) -> None:
        async with self.db.sessionmaker() as session:
            await session.execute(UPDATE_FIRST)  # waits
            await session.commit()

    async def swapped_in(self) -> None:
        async with self.swap_in.begin() as connection:
            await connection.execute(UPDATE_FIRST)  # waits

    async def run_write(self) -> None:
        await self.db.run_write(lambda session: session.execute(UPDATE_FIRST) and None)  # waits

    async def run_write_core(self) -> None:
        await self.db.run_write_core(lambda one: one.execute(UPDATE_FIRST) and None)  # waits


@pytest.mark.parametrize(
    "way", ["write", "begin", "routed", "swapped_in", "run_write", "run_write_core"]
)
async def test_for_the_write_turn(
    path: Path, make_engine: MakeEngine, records: Records, way: str
) -> None:
    """Through each door, the log has the task, its line, and the turn's holder meanwhile."""
    async with one_reader(path) as db:
        swap_in = make_engine(SQLitePool, slow_wait_warning=0.0)
        writes = Writes(db, swap_in)
        await behind(writes.hold, turn_of(path).line, getattr(writes, way))
    (found,) = records.of(SlowWait)
    assert (found["task"], found["waited_for"]) == ("request-7", "write turn")
    assert found["asked_at"] == line(getattr(Writes, way), "# waits")
    assert re.match(r"\d+\.\d s by task 'import-42' \(now at test_slow_waits.py:", found["held_by"])
    assert "last SQL: UPDATE items" in found["held_by"]
    assert (found["outcome"], found["left_out"]) == ("served", 0)
    assert 0 < found["seconds_waited"] < 30
    assert re.match(
        r"task 'request-7' waited \d+\.\d\d s to write to app.db at test_slow_waits.py:\d+; in the "
        r"way after 0.00 s: .* by task 'import-42' .*; shorten such transactions, or ",
        found["message"],
    )


class Reads:
    """The ways to read, on one reader."""

    def __init__(self, db: SQLiteDatabase) -> None:
        self.db = db
        self.prepared = db.prepare(READ)

    async def hold(self, leave: asyncio.Event) -> None:
        async with self.db.read() as session:
            await session.execute(READ)
            await leave.wait()

    async def read(self) -> None:
        async with self.db.read() as session:
            await session.execute(READ)  # waits

    async def connect(self) -> None:
        async with self.db.reader_engine.connect() as connection:  # waits
            await connection.execute(READ)

    async def run_read(self) -> None:
        await self.db.run_read(lambda session: session.execute(READ).all())  # waits

    async def run_read_core(self) -> None:
        await self.db.run_read_core(lambda connection: connection.execute(READ).all())  # waits

    async def prepared_read(self) -> None:
        await self.prepared.all()  # waits


@pytest.mark.parametrize("way", ["read", "connect", "run_read", "run_read_core", "prepared_read"])
async def test_for_a_reader(path: Path, records: Records, way: str) -> None:
    """Each door is included, even prepared reads and closures."""
    async with one_reader(path) as db:
        reads = Reads(db)
        await reads.prepared.all()
        pool = db.reader_engine.pool
        assert isinstance(pool, FairPool)
        await behind(reads.hold, pool._line, getattr(reads, way))
    (found,) = records.of(SlowWait)  # and none of a task that borrows readers for closures
    assert (found["task"], found["waited_for"]) == ("request-7", "reader")
    assert found["asked_at"] == line(getattr(Reads, way), "# waits")
    assert "by task 'import-42' (now at test_slow_waits.py:" in found["held_by"]
    assert found["message"].startswith("task 'request-7' waited 0.")
    assert " for a reader of app.db at " in found["message"]


async def test_for_a_connection(make_engine: MakeEngine, records: Records) -> None:
    """The task waits for a connection of an exhausted swap-in pool."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0, slow_wait_warning=0.0)

    async def hold(leave: asyncio.Event) -> None:
        async with engine.connect():
            await leave.wait()

    async def connect() -> None:
        async with engine.connect():
            pass

    pool = engine.pool
    assert isinstance(pool, FairPool)
    await behind(hold, pool._line, connect)
    (found,) = records.of(SlowWait)
    assert (found["waited_for"], found["task"]) == ("connection", "request-7")
    assert " for a connection to app.db at " in found["message"]


async def update(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)  # waits


async def test_for_another_process(path: Path, make_engine: MakeEngine, records: Records) -> None:
    """The process is named, as far as the system reports it."""
    engine = make_engine(WriterPool, slow_wait_warning=0.0)
    await create_items(engine)
    request = taken(process(path))
    writing = asyncio.create_task(update(engine), name="request-7")
    turn = turn_of(path)
    await until(lambda: turn.holder is not None and turn.holder.waits_for is not None)
    await laps()
    request.release()
    await writing
    (found,) = (one for one in records.of(SlowWait) if one["waited_for"] == "other process")
    assert (found["task"], found["outcome"]) == ("request-7", "served")
    assert found["asked_at"] == line(update, "# waits")
    assert "process" in found["held_by"]


async def test_a_function_for_another_process(path: Path, records: Records) -> None:
    """The group's leading task waits for it, and only the closure's own task is logged."""
    async with one_reader(path) as db:
        records.lines.clear()
        request = taken(process(path))
        waiter = asyncio.create_task(Writes(db, db.writer_engine).run_write(), name="request-7")
        turn = turn_of(path)
        await until(lambda: turn.holder is not None and turn.holder.waits_for is not None)
        await laps()
        request.release()
        await waiter
    (found,) = records.of(SlowWait)
    assert (found["task"], found["waited_for"]) == ("request-7", "write turn")


async def test_functions_that_come_later(path: Path, records: Records) -> None:
    """Each in a group is examined when it has waited for long, and when it is overdue."""
    async with one_reader(path, slow_wait_warning=0.01, write_timeout=0.1) as db:
        writes = Writes(db, db.writer_engine)
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            first = asyncio.create_task(writes.run_write(), name="first")
            await until_waiting(1, turn_of(path))
            calls: Any = next(iter(db._closures._writes._groups)).line
            await until(lambda: calls._waiting()[0].held_by)
            second = asyncio.create_task(writes.run_write_core(), name="second")
            await until(lambda: len(calls.calls) == 2)
            await until(lambda: calls._waiting()[1].held_by)
            for waiter in (first, second):
                with pytest.raises(WriteTimeout):
                    await waiter
        await writes.run_write()
    found = records.of(SlowWait)
    assert [one["task"] for one in found] == ["first", "second"]
    assert {one["outcome"] for one in found} == {"WriteTimeout"}
    assert all(one["seconds_waited"] >= 0.1 for one in found)


async def test_a_function_that_joins_one_that_runs_long(path: Path, records: Records) -> None:
    """Its group has examined no call for a while, and examines this one in time."""
    async with one_reader(path, slow_wait_warning=0.01, write_timeout=0.1) as db:
        begun, leave = threading.Event(), threading.Event()

        def work(_: object) -> None:
            begun.set()
            leave.wait(30)

        writes = Writes(db, db.writer_engine)
        running = asyncio.create_task(db.run_write(work))
        await until(begun.is_set)
        calls: Any = next(iter(db._closures._writes._groups)).line
        await until(lambda: calls._timer is None)
        waiter = asyncio.create_task(writes.run_write(), name="request-7")
        await until(lambda: calls.calls)
        with pytest.raises(WriteTimeout):
            await waiter
        leave.set()
        await running
        await writes.run_write_core()
    found = {one["task"]: one["outcome"] for one in records.of(SlowWait)}
    assert found["request-7"] == "WriteTimeout"


# -- in vain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["write", "run_write"])
async def test_a_wait_that_is_cancelled(
    path: Path, make_engine: MakeEngine, records: Records, way: str
) -> None:
    """A client has disconnected, and only the log shows what its task waited for."""
    async with one_reader(path) as db, db.write() as session:
        await session.execute(UPDATE_FIRST)
        waiter = asyncio.create_task(getattr(Writes(db, db.writer_engine), way)())
        await until_waiting(1, turn_of(path))
        await laps()
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    (found,) = records.of(SlowWait)
    assert found["outcome"] == "CancelledError"
    assert ", in vain (CancelledError); in the way" in found["message"]


@pytest.mark.parametrize("way", ["write", "run_write"])
async def test_a_wait_that_is_too_long(path: Path, records: Records, way: str) -> None:
    """The error contains the same information, but the log has it, too."""
    async with one_reader(path, write_timeout=0.05) as db, db.write() as session:
        await session.execute(UPDATE_FIRST)
        waiter = asyncio.create_task(getattr(Writes(db, db.writer_engine), way)())
        with pytest.raises(WriteTimeout):
            await waiter
    (found,) = records.of(SlowWait)
    assert found["outcome"] == "WriteTimeout"
    assert found["seconds_waited"] >= 0.05


async def test_a_read_that_is_cancelled(path: Path, records: Records) -> None:
    """A closure waits for a reader."""
    async with one_reader(path) as db, db.read() as session:
        await session.execute(READ)
        waiter = asyncio.create_task(Reads(db).run_read())
        pool = db.reader_engine.pool
        assert isinstance(pool, FairPool)
        await until_waiting(1, pool)
        await laps()
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    (found,) = records.of(SlowWait)
    assert found["outcome"] == "CancelledError"


# -- what is not logged ----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 60.0])
async def test_waits_below_the_limit(path: Path, records: Records, limit: float | None) -> None:
    """Shorter waits are not logged, and without a limit none is."""
    async with one_reader(path, slow_wait_warning=limit) as db:
        writes, reads = Writes(db, db.writer_engine), Reads(db)
        pool = db.reader_engine.pool
        assert isinstance(pool, FairPool)
        for way in (writes.write, writes.run_write):
            await behind(writes.hold, turn_of(path).line, way)
        for read in (reads.read, reads.run_read):
            await behind(reads.hold, pool._line, read)
    assert records.lines == []


async def test_what_runs_long_has_not_waited_long(path: Path, records: Records) -> None:
    """A closure's wait ends when it starts to run."""
    async with one_reader(path, slow_wait_warning=0.02) as db:
        loop = asyncio.get_running_loop()
        for run in (db.run_write, db.run_read):
            began = loop.time()

            def work(_: object, until: float = began + 0.05) -> None:
                while loop.time() < until:
                    pass

            await run(work)
    assert records.lines == []


async def test_once_a_line_and_minute(path: Path, records: Records) -> None:
    """Repetitions are counted by the engine's clock."""
    async with one_reader(path) as db:
        writes, now = Writes(db, db.writer_engine), 0.0
        pool = db.writer_engine.pool
        assert isinstance(pool, FairPool)
        pool.wait_watch._repeats._clock = lambda: now
        for now in (0.0, 1.0, 59.0, 60.0, 61.0):  # noqa: B007 - the clock reads it
            await behind(writes.hold, turn_of(path).line, writes.write)
        await behind(writes.hold, turn_of(path).line, writes.begin)
    found = records.of(SlowWait)
    assert [one["left_out"] for one in found] == [0, 2, 0]
    assert found[1]["message"].endswith("; 2 more since the last such warning were not logged")
    assert found[0]["asked_at"] == found[1]["asked_at"] != found[2]["asked_at"]


# -- the option ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slow_wait_warning", "slow_statement_warning"])
@pytest.mark.parametrize("seconds", [-1, "1", True])
def test_what_is_no_limit(path: Path, name: str, seconds: Any) -> None:
    """An invalid limit is refused by name."""
    options: Any = {name: seconds}
    with pytest.raises(ConfigurationError, match=f"{name} must be a number of seconds ≥ 0"):
        SQLiteDatabase(path, **options)


async def test_a_second_by_default(make_engine: MakeEngine) -> None:
    """The default applies to waits; statements are not timed."""
    pool = make_engine(SQLitePool).pool
    assert isinstance(pool, FairPool)
    settings = pool._connector.settings
    assert (settings.slow_wait_warning, settings.slow_statement_warning) == (1.0, None)
