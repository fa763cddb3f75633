"""``pragmas={"journal_mode": "TRUNCATE"}``: one file, and readers and writers that wait.

A reader has a SHARED lock from its first statement to its end. A COMMIT takes PENDING, which keeps
new readers out, waits until nobody reads, and writes (https://www.sqlite.org/lockingv3.html).

    Reader            | Writer              | New reader
    BEGIN; SELECT     |                     |
                      | BEGIN IMMEDIATE …   |
                      | COMMIT: waits       |
                      |                     | SELECT: waits
    ROLLBACK          |                     |
                      | (goes on)           | (goes on)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from sa_sqlite_pool import (
    DatabaseNotUsableError,
    ForbiddenWriteError,
    OwnLockError,
    ReaderPool,
    ReadTimeout,
    SQLiteDatabase,
    SQLitePool,
    StaleReadError,
    WriterPool,
    WriteTimeout,
    routing_sessionmaker,
)
from sa_sqlite_pool.driver import executor
from sa_sqlite_pool.statistics import CheckpointOutcome
from sa_sqlite_pool.transactions.locks import may_pass
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    driver,
    files_beside,
    until,
    until_free,
)

Connection = AsyncConnection | AsyncSession
READ = text("SELECT sum(amount) FROM items")
MODES = ["TRUNCATE", "DELETE", "PERSIST"]


class Door:
    """One way into the package, without WAL."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self.writer = writer
        self.reader = reader

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        async with self.writer.connect() as connection:
            writer = await connection.execution_options(sqlite_role="writer")
            async with writer.begin():
                yield writer

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        async with self.reader.connect() as connection:
            yield await connection.execution_options(sqlite_role="reader")

    async def add(self) -> None:
        async with self.write() as writer:
            await writer.execute(UPDATE_FIRST)

    async def total(self) -> int:
        async with self.read() as reader:
            return int(await reader.scalar(READ) or 0)


@pytest.fixture(params=["facade", "engines", "swap-in"])
async def make_door(
    request: pytest.FixtureRequest, make_engine: MakeEngine, path: Path
) -> AsyncIterator[Any]:
    """``await make_door(...)``: with three items."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(mode: str = "TRUNCATE", **options: Any) -> Door:
            options["pragmas"] = {"journal_mode": mode}
            if request.param == "facade":
                db = await stack.enter_async_context(SQLiteDatabase(path, **options))
                door = Door(db.writer_engine, db.reader_engine)
            elif request.param == "engines":
                door = Door(make_engine(WriterPool, **options), make_engine(ReaderPool, **options))
            else:
                engine = make_engine(SQLitePool, **options)
                door = Door(engine, engine)
            await create_items(door.writer)
            async with door.read(), door.read(), door.read():
                pass  # so that later on nobody has to open a connection first
            return door

        yield make


# -- it works --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_writes_and_reads(make_door: Any, path: Path, mode: str) -> None:
    """Through every door, in every mode; there is no log."""
    door = await make_door(mode)
    await door.add()
    assert await door.total() == 1
    async with door.write() as writer:
        await writer.execute(UPDATE_FIRST)
        assert f"{path.name}-journal" in files_beside(path)
        await writer.rollback()
    assert await door.total() == 1
    async with door.write() as writer:
        assert await writer.scalar(text("PRAGMA journal_mode")) == mode.lower()
    assert not {f"{path.name}-wal", f"{path.name}-shm"} & files_beside(path)


async def test_a_power_failure_costs_nothing(make_door: Any, make_engine: MakeEngine) -> None:
    """Without WAL, synchronous=NORMAL may break the database, so FULL is what is not asked for."""
    door = await make_door()
    async with door.write() as writer:
        assert await writer.scalar(text("PRAGMA synchronous")) == 2
    normal = make_engine(SQLitePool, pragmas={"journal_mode": "DELETE", "synchronous": "NORMAL"})
    async with normal.connect() as connection:
        assert await connection.scalar(text("PRAGMA synchronous")) == 1


async def test_readers_are_isolated_and_cannot_write(make_door: Any) -> None:
    """As with WAL."""
    door = await make_door()
    async with door.read() as reader:
        before = await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        assert await reader.scalar(READ) == before
        with pytest.raises(OperationalError) as caught:
            await reader.execute(UPDATE_FIRST)
        assert isinstance(caught.value.orig, ForbiddenWriteError)
        await reader.rollback()
        await adding
        assert await reader.scalar(READ) == before + 1


async def test_the_log_and_what_is_said_of_it(path: Path) -> None:
    """There is none."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}) as db:
        await create_items(db.writer_engine)
        for mode in ("passive", "full", "restart", "truncate"):
            assert (await db.checkpoint(mode)).outcome is CheckpointOutcome.NOT_WAL
        assert db.statistics().wal is None


# -- waiting ---------------------------------------------------------------------------------------


async def until_pending(door: Door) -> None:
    """Until a COMMIT keeps readers out."""
    path = door.writer.url.database
    assert path is not None
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as outsider:

        def refused() -> bool:
            try:
                outsider.execute("SELECT * FROM items").fetchall()
            except sqlite3.OperationalError:
                return True
            return False

        await until(refused)


async def test_a_commit_waits_for_readers_and_keeps_new_ones_out(make_door: Any) -> None:
    """And all go on, as drawn above; nobody is starved by a chain of readers."""
    door = await make_door()
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        coming = asyncio.create_task(door.total())
        await reader.scalar(READ)
        assert not adding.done()
        assert not coming.done()
    await adding
    assert await coming == 1


async def test_a_reader_that_stays_is_named_to_the_writer(make_door: Any, path: Path) -> None:
    """Clear waits: who, how long, where, its SQL, and what to do; it is rolled back."""
    door = await make_door(write_timeout=0.1)

    async def report(reading: asyncio.Event, done: asyncio.Event) -> None:
        async with door.read() as reader:
            await reader.scalar(READ)
            reading.set()
            await done.wait()

    reading, done = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(report(reading, done), name="report")
    await reading.wait()
    with pytest.raises(WriteTimeout) as caught:
        await door.add()
    message = str(caught.value)
    assert message.startswith(
        "waited 0.10 s to commit to app.db, and rolled back; without WAL, a commit waits until "
        "nobody reads, and one has read for "
    )
    assert "by task 'report' (now at test_rollback_journal.py:" in message
    assert "last SQL: SELECT sum(amount) FROM items)" in message
    assert "raise write_timeout" in message
    assert await door.total() == 0  # no lock is left
    done.set()
    await task
    await door.add()
    assert await door.total() == 1


async def test_a_task_that_waits_for_itself_is_told(make_door: Any) -> None:
    """A write inside a read of the same task: fine with WAL; without, it is refused at once."""
    door = await make_door(write_timeout=30.0)
    async with door.read() as reader:
        await reader.scalar(READ)
        with pytest.raises(OperationalError, match="would wait for itself") as caught:
            await door.add()
        assert isinstance(caught.value.orig, OwnLockError)
    await door.add()


async def test_autocommit_waits_as_a_commit_does(make_door: Any) -> None:
    """There is no COMMIT then; the statement names the reader."""
    door = await make_door(write_timeout=0.1)
    async with door.read() as reader:
        await reader.scalar(READ)

        async def write() -> None:  # in a task of its own: the reader's would wait for itself
            async with door.writer.connect() as connection:
                autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await autocommit.execute(UPDATE_FIRST)

        with pytest.raises(WriteTimeout, match=r"waited 0\.10 s to commit .* one has read for"):
            await asyncio.create_task(write())


async def test_what_keeps_a_new_reader_out_is_named(make_door: Any) -> None:
    """A COMMIT that waits for a reader: it is that reader's fault."""
    door = await make_door(read_timeout=0.1)
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        with pytest.raises(ReadTimeout) as caught:
            await door.total()
        assert str(caught.value).startswith(
            "waited 0.10 s to read from app.db; without WAL, nobody begins to read while a commit "
            "waits for those who do, and one has read for "
        )
        assert "raise read_timeout" in str(caught.value)
    await adding
    assert await door.total() == 1


async def test_opening_a_reader_waits_as_long_as_reading(make_engine: MakeEngine) -> None:
    """Not until write_timeout, which may be long."""
    pragmas = {"journal_mode": "TRUNCATE"}
    writer = make_engine(WriterPool, pragmas=pragmas)
    reader = make_engine(ReaderPool, pragmas=pragmas, read_timeout=0.1)
    await create_items(writer)
    door = Door(writer, reader)
    async with door.read() as first:
        await first.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        with pytest.raises(OperationalError, match=r"waited 0\.10 s to open app\.db .* is locked"):
            await door.total()
    await adding


async def test_somebody_outside_is_not_mistaken_for_a_reader(make_door: Any, path: Path) -> None:
    """BEGIN IMMEDIATE waits for writers alone."""
    door = await make_door(write_timeout=0.1, read_timeout=0.1)
    shell = sqlite3.connect(path, isolation_level=None, timeout=0)
    shell.execute("BEGIN IMMEDIATE")
    async with door.read() as reader:
        await reader.scalar(READ)
        with pytest.raises(WriteTimeout, match=r"another connection.* holds SQLite's lock"):
            await door.add()
    shell.execute("ROLLBACK")
    shell.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ReadTimeout, match="another connection holds SQLite's lock exclusively"):
        await door.total()
    shell.close()
    assert await door.total() == 0


async def test_readers_wait_where_python_does_not_tell_the_code(
    make_door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.10: "locked" in a reader's transaction is not a stale snapshot."""

    def by_text_alone(error: sqlite3.Error, *, in_transaction: bool) -> bool:
        return may_pass(sqlite3.OperationalError(str(error)), in_transaction=in_transaction)

    monkeypatch.setattr(executor, "may_pass", by_text_alone)
    await test_a_commit_waits_for_readers_and_keeps_new_ones_out(make_door)


# -- cancellation ----------------------------------------------------------------------------------


async def test_a_commit_that_waits_can_be_cancelled(make_door: Any, path: Path) -> None:
    """Nothing of it is kept, no lock is left, and the turn passes on."""
    door = await make_door()
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        await until_free(path)
        assert await door.total() == 0  # readers are let in again
    await door.add()
    assert await door.total() == 1


async def test_a_reader_that_waits_can_be_cancelled(make_door: Any) -> None:
    """It leaves no lock."""
    door = await make_door()
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        coming = asyncio.create_task(door.total())
        await asyncio.sleep(0)
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
    await adding
    assert await door.total() == 1


async def test_a_cancelled_reader_lets_the_commit_go_on(make_door: Any) -> None:
    """Its statement is stopped, and its lock with it."""
    door = await make_door()
    running = asyncio.Event()

    async def read_for_ever() -> None:
        async with door.read() as reader:
            await reader.scalar(READ)
            running.set()
            await reader.execute(ENDLESS)

    reading = asyncio.create_task(read_for_ever())
    await running.wait()
    adding = asyncio.create_task(door.add())
    await until_pending(door)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await adding
    assert await door.total() == 1


# -- sessions that read and then write -------------------------------------------------------------


@pytest.mark.parametrize("refuse_stale_writes", [False, True])
async def test_auto_sessions_do_not_wait_for_each_other(
    make_engine: MakeEngine, refuse_stale_writes: bool
) -> None:
    """What a session has read is let go before it stands in line for the turn.

    Session A        | Session B
    SELECT           |
                     | SELECT; UPDATE; COMMIT: waits for A's read
    UPDATE: waits for B's turn
    """
    pragmas = {"journal_mode": "TRUNCATE"}
    writer, reader = (make_engine(p, pragmas=pragmas) for p in (WriterPool, ReaderPool))
    await create_items(writer)
    maker = routing_sessionmaker(
        writer=writer, reader=reader, refuse_stale_writes=refuse_stale_writes
    )
    barrier = asyncio.Event()
    reads = 0

    async def read_then_write(number: int) -> None:
        nonlocal reads
        async with maker() as session:
            item = await session.get_one(Item, number)
            reads += 1
            if reads == 3:
                barrier.set()
            await barrier.wait()
            item.amount += 1
            await session.commit()

    results = await asyncio.wait_for(
        asyncio.gather(*(read_then_write(n) for n in (1, 2, 3)), return_exceptions=True), 20
    )
    stale = [result for result in results if result is not None]
    assert all(isinstance(result, StaleReadError) for result in stale)
    assert len(stale) == (2 if refuse_stale_writes else 0)
    assert sum(await amounts(reader)) == 3 - len(stale)


async def test_what_was_read_is_let_go_with_wal_too(make_engine: MakeEngine) -> None:
    """A session that stands in line for the turn keeps no snapshot, so the log can shrink."""
    writer, reader = make_engine(WriterPool), make_engine(ReaderPool)
    await create_items(writer)
    async with routing_sessionmaker(writer=writer, reader=reader)() as session:
        item = await session.get_one(Item, 1)
        raw = await driver(await session.connection(bind_arguments={"bind": reader.sync_engine}))
        assert raw.in_transaction
        item.amount = 1
        await session.flush()
        assert not raw.in_transaction
        await session.commit()
    assert (await amounts(reader))[0] == 1


async def test_an_open_stream_keeps_its_snapshot(make_engine: MakeEngine) -> None:
    """It is read to its end, in spite of the write; then its lock is gone."""
    pragmas = {"journal_mode": "TRUNCATE"}
    writer, reader = (make_engine(p, pragmas=pragmas) for p in (WriterPool, ReaderPool))
    await create_items(writer, 50)
    async with routing_sessionmaker(writer=writer, reader=reader)() as session:
        stream = await session.stream_scalars(select(Item.id).execution_options(yield_per=10))
        seen = [await anext(stream)]
        session.add(Item(id=1000))
        await session.flush()
        seen += [number async for number in stream]
        await session.commit()
    assert seen == list(range(1, 51))


# -- switching -------------------------------------------------------------------------------------


async def test_a_database_in_wal_mode_is_switched(make_door: Any, path: Path) -> None:
    """And its log is in the database then."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE before_ (n)")
    door = await make_door()
    async with door.write() as writer:
        assert await writer.scalar(text("SELECT count(*) FROM before_")) == 0
    assert f"{path.name}-wal" not in files_beside(path)


async def test_one_that_is_open_in_wal_mode_cannot_be(make_engine: MakeEngine, path: Path) -> None:
    """Another program, or an engine with another journal_mode: the error says so."""
    wal = make_engine(SQLitePool)
    await create_items(wal)
    engine = make_engine(WriterPool, pragmas={"journal_mode": "TRUNCATE"}, write_timeout=0.1)
    with pytest.raises(OperationalError) as caught:
        await amounts(engine)
    assert isinstance(caught.value.orig, DatabaseNotUsableError)
    assert "waited 0.10 s to open app.db with journal_mode=TRUNCATE (database is locked)" in str(
        caught.value
    )
    assert "give all engines on the file the same journal_mode" in str(caught.value)
    await wal.dispose()
    assert await amounts(engine) == [0, 0, 0]


# -- all at once -----------------------------------------------------------------------------------


async def test_many_tasks_mixed(make_door: Any) -> None:
    """Readers and writers at random, some cancelled: no error, no lost update, no starvation."""
    seed = int(os.environ.get("SEED", "1"))
    print("SEED", seed)  # noqa: T201 - to run it again
    dice = random.Random(seed)
    door = await make_door(write_timeout=20.0, read_timeout=20.0)
    done = 0

    async def work(writes: bool, pauses: list[int]) -> None:
        nonlocal done
        for pause in pauses:
            for _ in range(pause):
                await asyncio.sleep(0)
            if writes:
                await door.add()
                done += 1
            else:
                async with door.read() as reader:
                    first = await reader.scalar(READ)
                    await asyncio.sleep(0)
                    assert await reader.scalar(READ) == first

    tasks = [
        asyncio.create_task(work(number % 2 == 0, [dice.randrange(5) for _ in range(10)]))
        for number in range(16)
    ]
    doomed = dice.sample(tasks[8:], 3)
    await until(lambda: done >= 10)
    for task in doomed:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [r for r in results if isinstance(r, Exception)]
    assert errors == []
    total = await door.total()
    assert done <= total <= done + 3  # a cancelled task does not learn of its COMMIT
    await until_free(Path(str(door.writer.url.database)))
