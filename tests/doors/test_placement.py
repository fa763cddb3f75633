"""Short statements run on the event loop, all others in a thread; nothing else is different."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import (
    ConfigurationError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WalSettings,
    WriterPool,
)
from sa_sqlite_pool.driver import costs, laps, placement
from tests.conftest import MakeEngine
from tests.doors.placements import LEARNING, Run, Trace, learn, trace
from tests.helpers import create_items, driver, turn_of, until
from tests.wal.others import OtherProcess

__all__ = ["trace"]  # the fixture

READ = "SELECT amount FROM items WHERE id = 1"
WRITE = "UPDATE items SET amount = amount + 1 WHERE id = 1"
COUNT = (
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
    "SELECT max(i) FROM n"
)
LONG = COUNT.format(50_000)


@pytest.fixture(params=[SQLitePool, WriterPool], ids=["swap-in", "writer"])
async def engine(
    make_engine: MakeEngine, trace: Trace, request: pytest.FixtureRequest
) -> AsyncEngine:
    """One that writes, with the table ``items``, and no checkpoint since."""
    made = make_engine(request.param, on_connect=trace.on_connect)
    await create_items(made, 200)
    return made


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is short but for its steps, and the file was made long ago."""
    monkeypatch.setattr("sa_sqlite_pool.wal.lookout._RECENT_NS", 0)
    monkeypatch.setattr(placement, "SHORT_SECONDS", 60.0)
    monkeypatch.setattr(placement, "_LONG_SECONDS", 60.0)


def gives_way_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for name in ("_SECONDS", "_SECONDS_HOLDING"):
        monkeypatch.setattr(laps, name, seconds)


async def run(engine: AsyncEngine, *statements: str) -> list[Any]:
    """The first column of each, in one transaction."""
    async with engine.begin() as connection:
        results = [await connection.execute(text(sql)) for sql in statements]
        return [result.scalars().all() if result.returns_rows else None for result in results]


# -- inline -----------------------------------------------------------------------------------


async def test_a_short_read(make_engine: MakeEngine, trace: Trace) -> None:
    """On the loop from its second run on, with BEGIN and the end of its transaction."""
    writer = make_engine(WriterPool)
    await create_items(writer)
    reader = make_engine(ReaderPool, on_connect=trace.on_connect)
    with trace.recorded() as first:
        await run(reader, READ)
    with trace.recorded() as second:
        assert await run(reader, READ) == [[0]]
    assert Run(READ, False) in first
    assert second == [Run("BEGIN", True), Run(READ, True), Run("COMMIT", True)]


async def test_a_short_write(engine: AsyncEngine, trace: Trace) -> None:
    """On the loop from its fourth run on, with BEGIN IMMEDIATE and COMMIT."""
    for _ in range(3):
        with trace.recorded() as learning:
            await run(engine, WRITE)
        assert Run(WRITE, False) in learning
    with trace.recorded() as runs:
        await run(engine, WRITE)
    assert runs == [Run("BEGIN IMMEDIATE", True), Run(WRITE, True), Run("COMMIT", True)]
    assert await run(engine, READ) == [[4]]


async def test_no_hop(engine: AsyncEngine) -> None:
    await learn(engine, READ, WRITE)
    async with engine.begin() as connection:
        worker = (await driver(connection)).worker
        hops = worker.hops
        await connection.execute(text(WRITE))
        await connection.execute(text(READ))
    assert worker.hops == hops


async def test_each_connection_learns_for_itself(make_engine: MakeEngine, trace: Trace) -> None:
    """A text that is compiled anew, or whose pages are not in the cache, takes longer."""
    await create_items(make_engine(WriterPool))
    reader = make_engine(ReaderPool, on_connect=trace.on_connect)
    async with reader.connect() as one, reader.connect() as other:
        for connection in (one, one, other, other):
            await connection.execute(text(READ))
    assert [inline for sql, inline in trace.runs if sql == READ] == [False, True, False, True]


async def test_everything_is_as_in_the_thread(engine: AsyncEngine) -> None:
    """Rows, row counts, ids, errors."""
    insert = text("INSERT INTO items (amount) VALUES (7) RETURNING id")
    twice = text("INSERT INTO items (id, amount) VALUES (1, 1)")
    for number in range(1, 2 * LEARNING):
        async with engine.begin() as connection:
            assert (await connection.execute(text(WRITE))).rowcount == 1
            assert (await connection.execute(insert)).scalars().all() == [200 + number]
            with pytest.raises(Exception, match="UNIQUE constraint failed"):
                await connection.execute(twice)
            assert await connection.scalar(text("SELECT count(*) FROM items")) == 200 + number
        assert await run(engine, READ) == [[number]]


async def test_a_rollback(engine: AsyncEngine, trace: Trace) -> None:
    await learn(engine, WRITE)
    with trace.recorded() as runs:
        async with engine.connect() as connection:
            await connection.execute(text(WRITE))
            await connection.rollback()
    assert runs[-1] == Run("ROLLBACK", True)
    assert await run(engine, READ) == [[LEARNING]]


async def test_others_have_their_turn(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that only executes lets others go on, as often as it has taken its time."""
    await learn(engine, READ)
    gives_way_after(monkeypatch, 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async with engine.connect() as connection:
        worker = (await driver(connection)).worker
        hops, before = worker.hops, turns
        for _ in range(100):
            await connection.execute(text(READ))
        assert worker.hops == hops
    assert turns - before >= 49  # before every statement but the first of a lap
    counting.cancel()


@pytest.mark.parametrize("writes", [False, True])
async def test_sessions_that_never_wait_give_way_too(
    path: Path, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """One after the other: several tasks get on at the same pace."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                reader = await stack.enter_async_context(db.reader_engine.connect())
                await reader.execute(text(READ))
        gives_way_after(monkeypatch, 0.0)
        done = [0, 0, 0]

        async def use(number: int) -> None:
            while max(done) < 100:
                async with db.write() if writes else db.read() as session:
                    await session.execute(text(WRITE if writes else READ))
                done[number] += 1

        await asyncio.gather(*map(use, range(3)))
        assert min(done) >= 80


async def test_nobody_gives_way_without_need(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within its time a task goes on."""
    await learn(engine, READ)
    gives_way_after(monkeypatch, 60.0)
    async with engine.connect() as connection:
        await connection.execute(text(READ))
        other = asyncio.create_task(asyncio.sleep(0))
        for _ in range(100):
            await connection.execute(text(READ))
        assert not other.done()
    await other


async def test_a_cancellation_comes_before_or_after(
    engine: AsyncEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that finds the task waiting for its turn on the loop: the statement never runs."""
    await learn(engine, WRITE)
    gives_way_after(monkeypatch, 0.0)

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(text(WRITE))

    cancelled = True
    steps = written = 0
    while cancelled:
        task = asyncio.create_task(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled = task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        written += not task.cancelled()
        await until(lambda: turn_of(path).holder is None)
        steps += 1
    assert steps > 3
    after = (await run(engine, READ))[0][0]
    assert LEARNING + written <= after <= LEARNING + steps
    async with engine.connect() as connection:
        assert not (await driver(connection)).in_transaction


# -- in the thread ----------------------------------------------------------------------------


async def test_a_long_read(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What took long in the thread stays there."""
    monkeypatch.setattr(placement, "SHORT_SECONDS", costs.SHORT_SECONDS)
    await learn(engine, LONG)
    with trace.recorded() as runs:
        assert await run(engine, LONG) == [[50_000]]
    assert Run(LONG, False) in runs


async def test_a_read_that_is_longer_than_it_was(engine: AsyncEngine, trace: Trace) -> None:
    """It is stopped after some thousand steps, and runs again in the thread; so does the next."""
    places = []
    async with engine.connect() as connection:
        for most in (10, 10, 50_000, 10):
            with trace.recorded() as runs:
                assert await connection.scalar(text(COUNT.format(":most")), {"most": most}) == most
            places.append([inline for sql, inline in runs if "RECURSIVE" in sql])
    assert places == [[False], [True], [True, False], [False]]


async def test_only_long_reads_are_stopped(
    make_engine: MakeEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite counts steps over many runs: neither a short read nor the end of its transaction."""
    monkeypatch.setattr(placement, "_STEPS", 40)  # instead of thousands
    await create_items(make_engine(WriterPool))
    reader = make_engine(ReaderPool, on_connect=trace.on_connect)
    with trace.recorded() as runs:
        for _ in range(300):
            await run(reader, READ)
    assert [inline for sql, inline in runs if sql == READ] == [False] + [True] * 299


async def test_the_end_of_a_read_is_not_stopped(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what was asked about the read count for what comes after it."""
    monkeypatch.setattr(placement, "_STEPS", 40)
    monkeypatch.setattr(placement, "_ANSWERS", (1, 0))
    await create_items(make_engine(WriterPool))
    reader = make_engine(ReaderPool)
    for _ in range(300):
        assert await run(reader, READ) == [[0]]


async def test_a_stopped_read_leaves_its_transaction(engine: AsyncEngine, path: Path) -> None:
    """What was written before is still there, and is committed with the rest."""
    count = text(COUNT.format(":most"))
    await learn(engine, WRITE)
    async with engine.begin() as connection:
        await connection.execute(text(WRITE))
        for most in (10, 50_000):
            assert await connection.scalar(count, {"most": most}) == most
        assert (await driver(connection)).in_transaction
        await connection.execute(text(WRITE))
    assert await run(engine, READ) == [[LEARNING + 2]]


async def test_a_stopped_read_keeps_its_snapshot(make_engine: MakeEngine, trace: Trace) -> None:
    """Also where it was the first of its transaction: what comes after sees the same."""
    writer, reader = make_engine(WriterPool), make_engine(ReaderPool)
    await create_items(writer)
    count = text(COUNT.format(":most"))
    async with reader.connect() as connection:
        await connection.execute(count, {"most": 10})
        await connection.rollback()
        await connection.execute(text(READ))
        await connection.execute(count, {"most": 50_000})
        await run(writer, WRITE)
        assert await connection.scalar(text(READ)) == 0


async def test_a_write_is_never_stopped(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs once, however long it takes, and then goes to the thread."""
    sql = f"INSERT INTO items (amount) SELECT ({COUNT.format(':most')})"
    for most in (10, 10, 10, 10, 50_000, 10):
        monkeypatch.setattr(placement, "_LONG_SECONDS", 60.0 if most == 10 else 0.001)
        async with engine.begin() as connection:
            await connection.execute(text(sql), {"most": most})
    places = [inline for text_, inline in trace.runs if text_.startswith("INSERT INTO items (amo")]
    assert places == [False, False, False, True, True, False]
    assert await run(engine, "SELECT amount FROM items WHERE id > 200") == [[10] * 4 + [50_000, 10]]


async def test_a_write_of_many_rows(engine: AsyncEngine, trace: Trace) -> None:
    """However fast it is: its COMMIT has much to do."""
    many = "UPDATE items SET amount = 1"
    await learn(engine, many)
    with trace.recorded() as runs:
        await run(engine, many)
    assert Run(many, False) in runs


async def test_the_commit_of_many_writes(engine: AsyncEngine, trace: Trace) -> None:
    await learn(engine, WRITE)
    with trace.recorded() as runs:
        await run(engine, *[WRITE] * 51)
    assert runs[-1] == Run("COMMIT", False)
    with trace.recorded() as runs:
        await run(engine, *[WRITE] * 50)
    assert runs[-1] == Run("COMMIT", True)


async def test_many_parameters_and_streams(engine: AsyncEngine, trace: Trace) -> None:
    """Their length is known to nobody."""
    update, select = "UPDATE items SET amount = 5 WHERE id = :id", "SELECT id FROM items"
    for _ in range(2 * LEARNING):
        async with engine.begin() as connection:
            await connection.execute(text(update), [{"id": 1}, {"id": 2}])
            async with connection.stream(text(select)) as result:
                assert len([row async for row in result]) == 200
    ran = [inline for sql, inline in trace.runs if sql.startswith((update[:30], select))]
    assert len(ran) == 3 * 2 * LEARNING
    assert not any(ran)


async def test_a_limit_that_is_too_short(engine: AsyncEngine, trace: Trace) -> None:
    """Nobody could stop it on the loop."""
    await learn(engine, READ)
    async with engine.connect() as connection:
        for timeout, inline in ((0.049, False), (0.05, True)):
            with trace.recorded() as runs:
                statement = text(READ).execution_options(statement_timeout=timeout)
                await connection.execute(statement)
            assert Run(READ, inline) in runs


async def test_a_run_that_was_too_long(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the processor's time: the next runs are in the thread."""
    await learn(engine, READ)
    with monkeypatch.context() as patch:
        patch.setattr(placement, "_LONG_SECONDS", 0.0)
        await run(engine, READ)
    with trace.recorded() as runs:
        for _ in range(costs._FIRST_PENALTY + 1):
            await run(engine, READ)
    places = [inline for sql, inline in runs if sql == READ]
    assert places == [False] * costs._FIRST_PENALTY + [True]


@pytest.mark.parametrize("reads_disk", [True, False])
async def test_a_run_that_waited(
    engine: AsyncEngine, trace: Trace, monkeypatch: pytest.MonkeyPatch, reads_disk: bool
) -> None:
    """For the disk: it goes to the thread. For the processor or the interpreter: it may stay."""
    await learn(engine, READ)
    blocks = iter(range(1, 100))
    clock = iter(range(10_000))
    with monkeypatch.context() as patch:
        patch.setattr(placement, "disk_reads", lambda: next(blocks) if reads_disk else 0.0)
        patch.setattr(placement, "_LONG_SECONDS", 1.0)
        patch.setattr(time, "perf_counter", lambda: float(next(clock)))
        await run(engine, READ)
    with trace.recorded() as runs:
        await run(engine, READ)
    assert Run(READ, not reads_disk) in runs


async def test_a_lock_in_the_way(
    engine: AsyncEngine, path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error at once, for which the task waits; the loop goes on."""
    await learn(engine, WRITE)
    with OtherProcess(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with trace.recorded() as runs:
            writing = asyncio.create_task(run(engine, WRITE))
            await until(lambda: len(trace.runs) > 3)
            assert not writing.done()
            other.execute("COMMIT")
            await writing
    assert Run(WRITE, True) in runs
    assert await run(engine, READ) == [[LEARNING + 1]]


# -- functions --------------------------------------------------------------------------------


class Called:
    """A function of SQL that counts its calls, each in a thread."""

    def __init__(self) -> None:
        self.inline: list[bool] = []
        self._loop = threading.get_ident()

    def __call__(self, *_: object) -> int:
        self.inline.append(threading.get_ident() == self._loop)
        return 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT mine(amount) FROM items WHERE id = 1",
        "SELECT * FROM viewed",
        "UPDATE items SET amount = mine(1) WHERE id = 1",
        "INSERT INTO triggering VALUES (1)",
    ],
)
@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_a_function_of_the_application(
    make_engine: MakeEngine, poolclass: type, sql: str, trace: Trace
) -> None:
    """It is called in the thread, as often as the statement is run, wherever it stands."""
    called = Called()
    engine = make_engine(poolclass, on_connect=lambda c: c.create_function("mine", 1, called))
    await create_items(engine)
    await run(
        engine,
        "CREATE VIEW viewed AS SELECT mine(1) AS one",
        "CREATE TABLE triggering (n)",
        "CREATE TRIGGER t AFTER INSERT ON triggering BEGIN SELECT mine(new.n); END",
    )
    for _ in range(2 * LEARNING):
        await run(engine, sql)
    assert called.inline == [False] * (2 * LEARNING)


async def test_a_function_that_replaces_one_of_sqlites(
    make_engine: MakeEngine, trace: Trace
) -> None:
    """Also where the statement is known, and short."""
    engine, called = make_engine(SQLitePool, pool_size=1, max_overflow=0), Called()
    await create_items(engine)
    sql = "SELECT abs(amount) FROM items WHERE id = 2"
    await learn(engine, sql)
    async with engine.connect() as connection:
        (await driver(connection)).create_function("abs", 1, called)
    for _ in range(LEARNING):
        assert await run(engine, sql) == [[1]]
    assert called.inline == [False] * LEARNING


async def test_a_function_registered_on_the_raw_connection(
    make_engine: MakeEngine, trace: Trace
) -> None:
    """And run there, so that SQLite has compiled the statement before."""
    engine, called = make_engine(SQLitePool, pool_size=1, max_overflow=0), Called()
    await create_items(engine)
    await learn(engine, READ)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.create_function("mine", 0, called)
        await raw.execute_fetchall("SELECT mine()")
    for _ in range(LEARNING):
        await run(engine, "SELECT mine()", READ)
    assert called.inline == [False] * (1 + LEARNING)


async def test_a_view_that_begins_to_call_one(make_engine: MakeEngine, trace: Trace) -> None:
    """A statement that is known to be short is compiled anew: the guard sees it in time."""
    called = Called()
    engine = make_engine(
        SQLitePool,
        pool_size=1,
        max_overflow=0,
        on_connect=lambda c: c.create_function("mine", 1, called),
    )
    await create_items(engine)
    await run(engine, "CREATE VIEW viewed AS SELECT 1 AS one")
    await learn(engine, "SELECT one FROM viewed")
    await run(engine, "DROP VIEW viewed", "CREATE VIEW viewed AS SELECT mine(1) AS one")
    for _ in range(LEARNING):
        assert await run(engine, "SELECT one FROM viewed") == [[1]]
    assert called.inline == [False] * LEARNING


async def test_a_collation_of_the_application(make_engine: MakeEngine, trace: Trace) -> None:
    """SQLite does not tell where one is used: nothing runs inline."""

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.create_collation("mine", lambda a, b: (a > b) - (a < b))
        trace.on_connect(connection)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    await learn(engine, READ)
    assert not any(inline for sql, inline in trace.runs if sql == READ)


async def test_a_converter_of_the_application(make_engine: MakeEngine, trace: Trace) -> None:
    """It is Python code, and may do what it likes."""
    engine = make_engine(SQLitePool, connect_args={"detect_types": 1}, on_connect=trace.on_connect)
    await create_items(engine)
    await learn(engine, READ)
    assert not any(inline for sql, inline in trace.runs if sql == READ)


# -- COMMIT -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"pragmas": {"synchronous": "FULL"}},
        {"pragmas": {"journal_mode": "TRUNCATE"}},
        {"pragmas": {"wal_autocheckpoint": 1000}},
        {"wal": WalSettings(soft_limit=None)},
        {"wal": WalSettings(soft_limit=1)},
    ],
    ids=["full", "truncate", "autocheckpoint", "not-kept", "large"],
)
async def test_a_commit_that_may_wait_for_the_disk(
    make_engine: MakeEngine, trace: Trace, options: dict[str, Any]
) -> None:
    """It syncs, or runs a checkpoint, or there is something to do about the log."""
    engine = make_engine(WriterPool, on_connect=trace.on_connect, **options)
    await create_items(engine)
    with trace.recorded() as runs:
        for _ in range(2 * LEARNING):
            await run(engine, WRITE)
    assert not any(inline for sql, inline in runs if sql == "COMMIT")
    in_log = options.get("pragmas", {}).get("journal_mode") != "TRUNCATE"
    assert (Run(WRITE, True) in runs) is in_log


@pytest.mark.parametrize(
    "setting",
    ["PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 1000", "ATTACH ':memory:' AS b"],
)
async def test_a_setting_of_the_application(
    engine: AsyncEngine, trace: Trace, setting: str
) -> None:
    """Whoever changes it later."""
    await learn(engine, WRITE)
    async with engine.connect() as connection:
        await connection.execute(text(setting))
        await connection.commit()
        for _ in range(LEARNING):
            with trace.recorded() as runs:
                await connection.execute(text(WRITE))
                await connection.commit()
            assert runs[-1] == Run("COMMIT", False)


async def test_autocommit(engine: AsyncEngine, trace: Trace) -> None:
    """Each write is its own commit, and runs where that does."""
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        for _ in range(LEARNING):
            await connection.execute(text(WRITE))
        assert Run(WRITE, True) not in trace.runs  # no COMMIT is known
    await learn(engine, WRITE)
    with trace.recorded() as runs:
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(WRITE))
    assert runs[0] == Run(WRITE, True)


async def test_the_first_commit_after_a_checkpoint(path: Path, trace: Trace) -> None:
    """It begins the log anew, and syncs it; whoever ran the checkpoint."""
    async with SQLiteDatabase(path, on_connect=trace.on_connect) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)

        async def commits(count: int) -> list[bool]:
            with trace.recorded() as runs:
                for _ in range(count):
                    await run(db.writer_engine, WRITE)
            return [inline for sql, inline in runs if sql == "COMMIT"]

        assert await commits(2) == [True, True]
        await db.checkpoint()
        assert await commits(2) == [False, True]
        with OtherProcess(path) as other:
            assert other.execute("PRAGMA wal_checkpoint(PASSIVE)").startswith("[(0, ")
        assert await commits(2) == [False, True]


async def test_a_checkpoint_of_a_moment_ago(
    path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one would leave the same time on the file: nobody could tell them apart."""
    monkeypatch.setattr("sa_sqlite_pool.wal.lookout._RECENT_NS", 3_600 * 10**9)
    async with SQLiteDatabase(path, on_connect=trace.on_connect) as db:
        await create_items(db.writer_engine)
        with trace.recorded() as runs:
            await learn(db.writer_engine, WRITE, WRITE)
        assert not any(inline for sql, inline in runs if sql == "COMMIT")


# -- taken away -------------------------------------------------------------------------------


async def test_a_connection_that_is_given_up_meanwhile(engine: AsyncEngine, path: Path) -> None:
    """By another thread, in the middle of a statement: that is over before the rollback."""
    await learn(engine, WRITE)
    connection = await engine.connect()
    raw = await driver(connection)
    order: list[str] = []
    worker, gone = raw.worker, threading.Event()

    def done(_: object) -> None:
        order.append("gone")
        gone.set()

    def use(_: sqlite3.Connection) -> None:
        taking = threading.Thread(target=lambda: worker.give_up("taken", keep=True, done=done))
        taking.start()
        taking.join()
        assert not worker.may_run_inline
        assert not gone.wait(0.05)
        order.append("used")

    worker.run_here(use)
    assert await asyncio.to_thread(gone.wait, 10)
    assert order == ["used", "gone"]
    await connection.close()


# -- decided by the user ------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["facade", "engine"])
async def test_everything_in_the_thread(path: Path, make_engine: MakeEngine, door: str) -> None:
    trace = Trace()
    options: dict[str, Any] = {"placement": "thread", "on_connect": trace.on_connect}
    if door == "facade":
        async with SQLiteDatabase(path, **options) as db:
            await create_items(db.writer_engine)
            await learn(db.writer_engine, READ, WRITE)
    else:
        engine = make_engine(SQLitePool, **options)
        await create_items(engine)
        await learn(engine, READ, WRITE)
    assert not any(inline for _, inline in trace.runs)


async def test_everything_inline(make_engine: MakeEngine) -> None:
    """From the first run on, also what syncs, or is long."""
    trace = Trace()
    engine = make_engine(
        SQLitePool, placement="inline", on_connect=trace.on_connect, pragmas={"synchronous": "FULL"}
    )
    await create_items(engine)
    with trace.recorded() as runs:
        assert await run(engine, WRITE, LONG) == [None, [50_000]]
    assert runs
    assert all(inline for _, inline in runs)


@pytest.mark.parametrize("wrong", ["loop", None, 1])
def test_a_wrong_placement(path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"placement must be one of 'auto', 'thread', 'in"):
        SQLiteDatabase(path, placement=wrong)
    with pytest.raises(ConfigurationError, match="placement must be one of"):
        create_async_engine("sqlite+aiosqlite://", poolclass=SQLitePool, placement=wrong)


async def test_a_disposed_engine_keeps_its_placement(make_engine: MakeEngine) -> None:
    trace = Trace()
    engine = make_engine(SQLitePool, placement="thread", on_connect=trace.on_connect)
    await create_items(engine)
    await engine.dispose()
    await learn(engine, READ)
    assert not any(inline for _, inline in trace.runs)
