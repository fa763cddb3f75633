"""statement_timeout: statements that run too long are stopped, and the connection stays usable."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ConfigurationError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    StatementTimeout,
    TransactionLostError,
    WriterPool,
)
from sa_sqlite_pool.execution.connection_thread import ConnectionThread
from sa_sqlite_pool.execution.jobs import Job
from sa_sqlite_pool.transactions import locks
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    driver,
    turn_of,
    until,
    until_waiting,
)

ENDLESS_WRITE = text(
    "INSERT INTO items (amount) "
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
)
# For engines: long enough for a short statement on a machine that stalls for a while.
LIMIT = 0.5
MESSAGE = (
    r"a statement on app.db was stopped after statement_timeout=0\.(5|02) s: WITH RECURSIVE .*; "
    "shorten it, or raise statement_timeout"
)


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool, ReaderPool])
@pytest.mark.needs_thread
async def test_of_an_engine(make_engine: MakeEngine, path: Path, poolclass: type) -> None:
    """The error derives from SQLAlchemy's TimeoutError, and the connection stays the same."""
    await create_items(make_engine())
    engine = make_engine(poolclass, statement_timeout=LIMIT)
    async with engine.connect() as connection:
        before = await driver(connection)
        with pytest.raises(StatementTimeout, match=MESSAGE) as caught:
            await connection.execute(ENDLESS)
        assert isinstance(caught.value, SQLAlchemyTimeoutError)
        assert list(await connection.scalars(select(Item.id))) == [1, 2, 3]
        assert await driver(connection) is before
    assert turn_of(path).holder is None


@pytest.mark.needs_thread
async def test_of_the_facade(make_engine: MakeEngine, path: Path) -> None:
    """It applies to reads and writes; a writing transaction is lost, and the error says so."""
    await create_items(make_engine())
    async with SQLiteDatabase(path, statement_timeout=LIMIT) as db:
        with pytest.raises(StatementTimeout, match=MESSAGE):
            async with db.read() as session:
                await session.execute(ENDLESS)
        with pytest.raises(StatementTimeout, match="rolled back its transaction"):
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)
                await session.execute(ENDLESS_WRITE)
        assert await amounts(db.reader_engine) == [0, 0, 0]


@pytest.mark.needs_thread
async def test_what_follows_a_lost_transaction_is_refused(swap_in: AsyncEngine) -> None:
    """Half of the transaction is never committed."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        with pytest.raises(StatementTimeout):
            await connection.execute(ENDLESS_WRITE.execution_options(statement_timeout=LIMIT))
        with pytest.raises(DBAPIError, match="call rollback") as caught:
            await connection.execute(UPDATE_FIRST)
        assert isinstance(caught.value.orig, TransactionLostError)
        await connection.rollback()
        await connection.execute(UPDATE_FIRST)
        await connection.commit()
    assert await amounts(swap_in) == [1, 0, 0]


@pytest.mark.needs_thread
async def test_a_read_that_was_stopped_leaves_the_transaction_open(swap_in: AsyncEngine) -> None:
    """SQLite rolls back a write that was interrupted, and nothing else."""
    await create_items(swap_in)
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        with pytest.raises(StatementTimeout):
            await connection.execute(ENDLESS, execution_options={"statement_timeout": 0.02})
    assert await amounts(swap_in) == [1, 0, 0]


@pytest.mark.parametrize("of", ["statement", "connection", "engine"])
@pytest.mark.needs_thread
async def test_the_execution_option(make_engine: MakeEngine, of: str) -> None:
    """It is set on a statement, a connection, or a copy of an engine; the engine has no limit."""
    engine = make_engine(SQLitePool)
    limit = {"statement_timeout": 0.02}
    if of == "engine":
        engine = engine.execution_options(**limit)
    async with engine.connect() as connection:
        if of == "connection":
            await connection.execution_options(**limit)
        with pytest.raises(StatementTimeout, match=MESSAGE):
            await connection.execute(ENDLESS, execution_options=limit if of == "statement" else {})


@pytest.mark.needs_thread
async def test_none_is_no_limit(make_engine: MakeEngine) -> None:
    """A statement may be exempted from its engine's limit."""
    engine = make_engine(SQLitePool, statement_timeout=LIMIT)
    async with engine.connect() as connection:
        with pytest.raises(StatementTimeout):
            await connection.execute(ENDLESS)
        unlimited = ENDLESS.execution_options(statement_timeout=None)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(connection.execute(unlimited), 1.5 * LIMIT)


async def test_a_wrong_limit_is_refused(swap_in: AsyncEngine) -> None:
    """The error is raised at the statement, and names the valid values."""
    async with swap_in.connect() as connection:
        with pytest.raises(ConfigurationError, match="statement_timeout must be a number of sec"):
            await connection.execute(
                text("SELECT 1"), execution_options={"statement_timeout": "5s"}
            )
        assert await connection.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("limit", [-1, "5s", True])
def test_a_wrong_limit_of_an_engine_is_refused(make_engine: MakeEngine, limit: object) -> None:
    """The error is raised when the engine is created."""
    with pytest.raises(ConfigurationError, match="statement_timeout must be a number of seconds"):
        make_engine(SQLitePool, statement_timeout=limit)


async def test_each_chunk_of_a_stream_has_the_limit(swap_in: AsyncEngine) -> None:
    """The limit does not apply to the whole stream, which lasts as long as it is read."""
    chunks = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n "
        "WHERE i < 5 OR i > 1000000000"
    )
    async with swap_in.connect() as connection:
        await connection.execution_options(statement_timeout=LIMIT, yield_per=2)
        rows = await connection.stream(chunks)
        assert await rows.fetchmany(2) == [(1,), (2,)]
        with pytest.raises(StatementTimeout, match="fetching"):
            await rows.fetchall()


@pytest.mark.needs_thread
async def test_waiting_for_the_turn_does_not_count(
    make_engine: MakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """write_timeout limits that wait; a statement begins to run when it has its turn."""
    engine = make_engine(SQLitePool, statement_timeout=60.0, write_timeout=1e6)
    await create_items(engine)
    turn, now = turn_of(path), [0.0]
    limits: list[float | None] = []
    permit = await turn.acquire(1)
    async with engine.connect() as connection:
        raw = await driver(connection)
        monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(ConnectionThread, "run", noting(limits))
        task = asyncio.create_task(connection.execute(UPDATE_FIRST))
        await until_waiting(1, turn)
        now[0] += 3600
        turn.release(permit)
        await task
        assert limits == [60.0]
        await connection.commit()
        assert raw.worker.at_rest
    assert await amounts(engine) == [1, 0, 0]


@pytest.mark.needs_thread
async def test_waiting_for_a_lock_does_not_count(
    make_engine: MakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a lock of a program that does not know the package, each try has the full limit."""
    engine = make_engine(SQLitePool, statement_timeout=60.0, write_timeout=1e6)
    await create_items(engine)
    now, limits = [0.0], list[float | None]()
    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ConnectionThread, "run", noting(limits))
    with closing(sqlite3.connect(path, isolation_level=None)) as outsider:
        async with engine.connect() as connection:
            outsider.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await until(lambda: 60.0 in limits)
            now[0] += 3600
            tries = len(limits)
            await until(lambda: task.done() or len(limits) > tries + 1)
            outsider.execute("ROLLBACK")
            await task
            await connection.commit()
    assert set(limits) <= {60.0, None}  # COMMIT has none
    assert await amounts(engine) == [1, 0, 0]


def noting(limits: list[float | None]) -> Callable[..., Job[Any]]:
    """Return a ``ConnectionThread.run`` that also notes the limit of each job."""
    run = ConnectionThread.run

    def noting_run(worker: ConnectionThread, *arguments: Any, **options: Any) -> Job[Any]:
        limits.append(options.get("timeout"))
        return run(worker, *arguments, **options)

    return noting_run


async def test_listeners_that_execute_for_the_dialect_keep_their_say(swap_in: AsyncEngine) -> None:
    """A listener of the package applies the option, beside those of the application."""
    seen: list[str] = []

    @event.listens_for(swap_in.sync_engine, "do_execute")
    def note(cursor: object, statement: str, parameters: object, context: object) -> None:
        seen.append(statement)

    async with swap_in.connect() as connection:
        await connection.execute(text("SELECT 1"))
    assert seen == ["SELECT 1"]
