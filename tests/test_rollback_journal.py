"""``pragmas={"journal_mode": "TRUNCATE"}``: one file; readers and writers wait for each other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import (
    DatabaseNotUsableError,
    ForbiddenWriteError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    StaleReadError,
    WriterPool,
    routing_sessionmaker,
)
from sa_sqlite_pool.stats.log import CheckpointOutcome
from tests.conftest import MakeEngine
from tests.helpers import (
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    driver,
    files_beside,
    until,
    until_free,
)
from tests.rollback_journals import MODES, READ, make_door, until_pending

__all__ = ["make_door"]


# -- it works --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_writes_and_reads(make_door: Any, path: Path, mode: str) -> None:
    """They work through every door, in every mode, and there is no log."""
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
    """Without WAL, synchronous=NORMAL may corrupt the database, so the default is FULL."""
    door = await make_door()
    async with door.write() as writer:
        assert await writer.scalar(text("PRAGMA synchronous")) == 2
    normal = make_engine(SQLitePool, pragmas={"journal_mode": "DELETE", "synchronous": "NORMAL"})
    async with normal.connect() as connection:
        assert await connection.scalar(text("PRAGMA synchronous")) == 1


async def test_readers_are_isolated_and_cannot_write(make_door: Any) -> None:
    """Without WAL, too, readers are isolated and cannot write."""
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
    """There is no log."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "TRUNCATE"}) as db:
        await create_items(db.writer_engine)
        for mode in ("passive", "full", "restart", "truncate"):
            assert (await db.checkpoint(mode)).outcome is CheckpointOutcome.NOT_WAL
        assert db.statistics().wal is None


# -- sessions that read and then write -------------------------------------------------------------


@pytest.mark.parametrize("refuse_stale_writes", [False, True])
async def test_auto_sessions_do_not_wait_for_each_other(
    make_engine: MakeEngine, refuse_stale_writes: bool
) -> None:
    """A session releases its read before it waits in line for the turn.

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
    """A session that waits in line for the turn keeps no snapshot, so the log can shrink."""
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
    """It is read to its end despite the write, and then its lock is released."""
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
    """Its log is moved into the database."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE before_ (n)")
    door = await make_door()
    async with door.write() as writer:
        assert await writer.scalar(text("SELECT count(*) FROM before_")) == 0
    assert f"{path.name}-wal" not in files_beside(path)


async def test_one_that_is_open_in_wal_mode_cannot_be(make_engine: MakeEngine, path: Path) -> None:
    """If another program or engine has it open in another journal_mode, the error says so."""
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
    assert done <= total <= done + 3  # a cancelled task does not learn whether it committed
    await until_free(Path(str(door.writer.url.database)))
