"""Short reads are passed directly to SQLite, on the loop, and any interference is noticed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ForbiddenWriteError,
    ReaderPool,
    SnapshotTooOldError,
    SQLitePool,
    TransactionLostError,
    WriterPool,
)
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.execution import loop_budget
from sa_sqlite_pool.turn.snapshots import Snapshots
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, create_items, driver, turn_of, until
from tests.placement.work import READ, WRITE, Run, Trace, learn, run, snapshots_of

BLOB = "SELECT length(data) FROM blobs WHERE id = 5"


@contextmanager
def log_lost_at_first(raw: SQLiteConnection, path: Path, sql: str) -> Iterator[None]:
    """Make the log unreadable when ``sql`` first starts, and readable when it starts again."""
    log = Path(f"{path}-wal")
    content = log.read_bytes()

    def begins(statement: str) -> None:
        if statement == sql:
            if log.stat().st_size:
                os.truncate(log, 0)
            else:
                log.write_bytes(content)

    raw.worker.connection.set_trace_callback(begins)
    try:
        yield
    finally:
        raw.worker.connection.set_trace_callback(None)
        log.write_bytes(content)


async def test_a_transaction_that_sqlite_ended_in_a_read(engine: AsyncEngine, path: Path) -> None:
    """A failed read may roll back the transaction; no later statement is executed or committed."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data)"))
        for _ in range(8):
            await connection.execute(text("INSERT INTO blobs (data) VALUES (randomblob(3000))"))
    await learn(engine, BLOB)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.execute(text("PRAGMA shrink_memory"))  # makes SQLite read again
        with (
            log_lost_at_first(await driver(connection), path, BLOB),
            pytest.raises(OperationalError, match="disk I/O error"),
        ):
            await connection.execute(text(BLOB))
        with pytest.raises(DBAPIError, match="call rollback") as caught:
            await connection.execute(UPDATE_FIRST)
        assert isinstance(caught.value.orig, TransactionLostError)
        await connection.rollback()
        assert await connection.scalar(text(BLOB)) == 3000
    assert await run(engine, READ) == [[0]]


async def test_a_read_that_fails_when_it_begins_a_transaction(
    reader: AsyncEngine, make_engine: MakeEngine, path: Path
) -> None:
    """The failure loses nothing, so the read is repeated."""
    async with make_engine(WriterPool).begin() as connection:
        await connection.execute(text("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data)"))
        for _ in range(8):
            await connection.execute(text("INSERT INTO blobs (data) VALUES (randomblob(3000))"))
    await learn(reader, BLOB)
    async with reader.connect() as connection:
        raw = await driver(connection)
        raw.worker.connection.execute("PRAGMA shrink_memory")
        with log_lost_at_first(raw, path, BLOB):
            assert await connection.scalar(text(BLOB)) == 3000


async def test_a_snapshot_that_is_ended_during_a_pause(
    reader: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next read is refused, because it would see another state."""
    async with reader.connect() as connection:
        await connection.execute(text(READ))
        (snapshot,) = snapshots_of(reader)
        monkeypatch.setattr(loop_budget, "HOLDING_SECONDS", 0.0)
        snapshot.end_early(lambda: SnapshotTooOldError("it stood in the way"))
        with pytest.raises(OperationalError, match="it stood in the way") as caught:
            await connection.execute(text(READ))
        assert isinstance(caught.value.orig, SnapshotTooOldError)


async def test_in_a_gap(reader: AsyncEngine, make_engine: MakeEngine, trace: Trace) -> None:
    """The read waits for the end of the gap, and sees commits made meanwhile."""
    snapshots = snapshots_of(reader)
    with trace.recorded() as runs:
        with snapshots.gap(60.0) as gap:
            reading = asyncio.create_task(run(reader, READ))
            await until(lambda: gap._waiting)
            assert list(snapshots) == []
            await run(make_engine(WriterPool), WRITE)
        assert await reading == [[1]]
    assert Run(READ, True) in runs


Noted = list[tuple[str, int, bool]]


def note_what_is_known(raw: SQLiteConnection, snapshots: Snapshots) -> Noted:
    """Record for each statement, at its start, the number of snapshots and whether it is idle."""
    noted: Noted = []
    checkout = raw.executor.transaction.permit
    assert checkout is not None
    raw.worker.connection.set_trace_callback(
        lambda sql: noted.append((sql, len(list(snapshots)), checkout.idle_since is not None))
    )
    return noted


@pytest.mark.parametrize(
    ("role", "options", "runs", "left"),
    [
        ("reader engine", {}, ["BEGIN", READ], 1),
        ("reader engine", {"isolation_level": "AUTOCOMMIT"}, [READ], 0),
        ("swap-in", {}, [READ], 0),
        ("swap-in", {"sqlite_role": "reader"}, ["BEGIN", READ], 1),
        ("swap-in", {"isolation_level": "AUTOCOMMIT"}, [READ], 0),
    ],
)
async def test_others_know_of_it(
    make_engine: MakeEngine, role: str, options: dict[str, Any], runs: list[str], left: int
) -> None:
    """Its snapshot is registered before the read begins, and ends with its transaction."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(ReaderPool if role == "reader engine" else SQLitePool)
    await learn(engine, READ)
    snapshots = snapshots_of(engine)
    async with engine.connect() as connection:
        await connection.execution_options(**options)
        raw = await driver(connection)
        checkout = raw.executor.transaction.permit
        assert checkout is not None
        checkout.last_sql, hops = None, raw.worker.hops
        noted = note_what_is_known(raw, snapshots)
        began = checkout.since
        await connection.execute(text(READ))
        own = [note for note in noted if not note[0].startswith("PRAGMA query_only")]
        assert own == [(sql, 1, False) for sql in runs]
        assert raw.worker.hops == hops
        assert len(list(snapshots)) == left
        assert checkout.last_sql == READ
        assert checkout.idle_since is not None
        assert checkout.idle_since > began
        raw.worker.connection.set_trace_callback(None)
        await connection.rollback()
        assert list(snapshots) == []


async def test_within_a_transaction_that_writes(engine: AsyncEngine) -> None:
    """Such a read is not a reader that a gap would wait for, and begins no transaction."""
    await learn(engine, READ)
    snapshots = snapshots_of(engine)
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        raw = await driver(connection)
        claim = raw.executor.transaction.writing.claim
        with snapshots.gap(60.0):
            noted = note_what_is_known(raw, snapshots)
            assert await connection.scalar(text(READ)) == 1
            assert noted == [(READ, 0, False)]
        await connection.execute(UPDATE_FIRST)
        assert raw.executor.transaction.writing.claim is claim is not None  # acquired once
    assert await run(engine, READ) == [[2]]


async def test_the_first_read_of_a_writer(make_engine: MakeEngine, path: Path) -> None:
    """It acquires the file turn, so that no other process writes before its write."""
    engine = make_engine(WriterPool)
    await create_items(engine)
    await learn(engine, READ)
    async with engine.begin() as connection:
        raw = await driver(connection)
        await connection.execute(text(READ))
        assert raw.in_transaction
        assert raw.executor.transaction.writing.begun
        await connection.execute(UPDATE_FIRST)
    assert not raw.executor.transaction.writing.begun
    assert turn_of(path).holder is None


async def test_the_end_of_a_read_after_a_write(make_engine: MakeEngine, trace: Trace) -> None:
    """The writes of the previous transaction need no wait."""
    engine = make_engine(SQLitePool, on_connect=trace.on_connect, pragmas={"synchronous": "FULL"})
    await create_items(engine)
    await learn(engine, READ)
    async with engine.connect() as connection:
        await connection.execute(text(WRITE))
        await connection.commit()
        await connection.execute(text("BEGIN"))
        await connection.execute(text(READ))
        with trace.recorded() as runs:
            await connection.commit()
    assert runs == [Run("COMMIT", True)]


# -- errors ----------------------------------------------------------------------------------------

BY_ID = "SELECT amount FROM items WHERE id = ?"
DOOMED = "SELECT count(*) FROM doomed"


async def failure(engine: AsyncEngine, sql: str, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the error, which is raised twice; check that nothing is left behind."""
    found = []
    for _ in range(2):
        async with engine.connect() as connection:
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await connection.exec_driver_sql(sql, parameters)
            error = getattr(caught.value, "orig", caught.value)
            found.append((type(caught.value), type(error), str(error)))
            await connection.rollback()
            assert list(snapshots_of(engine)) == []
            assert await connection.scalar(text(READ)) == 0
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool])
@pytest.mark.parametrize(
    ("sql", "parameters"),
    [(BY_ID, ()), (BY_ID, ([],)), (BY_ID, (2**70,)), (BY_ID, ("\ud800",)), (DOOMED, ())],
    ids=["too few", "of no type", "too large", "no text", "no table"],
)
async def test_the_same_error_as_in_a_thread(
    make_engine: MakeEngine, poolclass: type, sql: str, parameters: tuple[Any, ...], trace: Trace
) -> None:
    """The statement was known to be short, but cannot run as before."""
    writer = make_engine(WriterPool)
    await create_items(writer)
    await run(writer, "CREATE TABLE doomed (id)")
    engines = [
        make_engine(poolclass, on_connect=trace.on_connect),
        make_engine(poolclass, placement="thread"),
    ]
    for engine in engines:
        for _ in range(3):
            async with engine.connect() as connection:
                await connection.exec_driver_sql(sql, (1,) if "?" in sql else ())
    assert trace.runs[-2 if poolclass is ReaderPool else -1].inline
    await run(writer, "DROP TABLE doomed")
    found = [await failure(engine, sql, parameters) for engine in engines]
    assert found[0] == found[1]


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool])
async def test_an_error_that_leaves_a_snapshot_to_nobody(
    make_engine: MakeEngine, poolclass: type, trace: Trace
) -> None:
    """This includes errors that are not SQLite's; no further call to the connection is needed."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass)
    for _ in range(3):
        async with engine.connect() as connection:
            await connection.exec_driver_sql(BY_ID, (1,))
    async with engine.connect() as connection:
        with pytest.raises(OverflowError):
            await connection.exec_driver_sql(BY_ID, (2**70,))
        checkout = (await driver(connection)).executor.transaction.permit
        assert checkout is not None
        assert checkout.idle_since is not None
        assert len(list(snapshots_of(engine))) == (poolclass is ReaderPool)


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool])
async def test_with_everything_inline_so_do_failures(
    make_engine: MakeEngine, poolclass: type
) -> None:
    """A refusal is explained without using a thread."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass, placement="inline").execution_options(sqlite_role="reader")
    async with engine.connect() as connection:
        worker = (await driver(connection)).worker
        hops = worker.hops
        with pytest.raises(OperationalError, match="no such table: nowhere"):
            await connection.execute(text("SELECT * FROM nowhere"))
        with pytest.raises(DBAPIError, match=r"a reader of app\.db cannot change") as caught:
            await connection.execute(text("EXPLAIN PRAGMA journal_mode = DELETE"))
        assert isinstance(caught.value.orig, ForbiddenWriteError)
        assert worker.hops == hops
