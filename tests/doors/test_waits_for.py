"""Time-outs behind a holder of the turn that itself waits for SQLite's lock."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase, SQLitePool, WriteTimeout
from sa_sqlite_pool.files import neighbours
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until
from tests.wal.others import OtherProcess

pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has locks"
)

Write = Callable[[], Awaitable[object]]


@pytest.fixture(params=["swap-in", "session", "function"])
async def write(
    request: pytest.FixtureRequest, path: Path, make_engine: MakeEngine
) -> AsyncIterator[Write]:
    """Yield a function for one transaction, through each door, with a long time limit."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        swap_in = make_engine(SQLitePool)

        async def by_swap_in() -> None:
            async with swap_in.begin() as connection:
                await connection.execute(UPDATE_FIRST)

        async def by_session() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)

        async def by_function() -> None:
            await db.run_write(lambda session: session.execute(UPDATE_FIRST).close())

        yield {"swap-in": by_swap_in, "session": by_session, "function": by_function}[request.param]


@asynccontextmanager
async def behind(path: Path, write: Write) -> AsyncIterator[str]:
    """Yield the error of a task that waits for the turn while ``write`` waits for the lock."""
    turn = turn_of(path)
    task = asyncio.ensure_future(write())
    holder = turn.holder
    while holder is None or holder.waits_for is None or "itself" not in holder.describe_holder():
        assert not task.done()
        await asyncio.sleep(0)
        holder = turn.holder
    with pytest.raises(WriteTimeout) as raised:
        await turn.acquire(0.0)
    yield str(raised.value)
    await task


async def test_another_program(path: Path, write: Write) -> None:
    """The error names it and its process for the tasks that wait behind."""
    with OtherProcess(path) as other:
        other.execute("BEGIN IMMEDIATE")
        async with behind(path, write) as message:
            assert (
                f"itself waiting for SQLite's lock, which {other.name} outside this package (for "
                "example, an sqlite3 shell or a stock engine) holds"
            ) in message
            assert "shorten that transaction or raise write_timeout" in message
            other.execute("ROLLBACK")


async def test_another_program_of_the_package(path: Path, write: Write) -> None:
    """The error does not say that it is outside the package."""
    with OtherProcess(path, present=True) as other:
        other.execute("BEGIN IMMEDIATE")
        async with behind(path, write) as message:
            assert f"which {other.name} holds" in message
            assert "outside" not in message
            other.execute("ROLLBACK")


async def test_a_connection_of_this_process(path: Path, write: Write) -> None:
    """The same applies to a connection of this process."""
    with closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("BEGIN IMMEDIATE")
        async with behind(path, write) as message:
            assert "which another connection of this process holds" in message
            own.execute("ROLLBACK")


async def test_without_evidence(path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is blamed if the system does not report one."""
    monkeypatch.setattr(neighbours, "locks", lambda: iter(()))
    with OtherProcess(path) as other:
        other.execute("BEGIN IMMEDIATE")
        async with behind(path, write) as message:
            assert (
                "SQLite's lock, which another connection, whose process cannot be determined, holds"
            ) in message
            assert "outside" not in message
            other.execute("ROLLBACK")


async def test_who_waits_itself_without_evidence(
    path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is that of the task that tries to acquire the lock."""
    monkeypatch.setattr(neighbours, "locks", lambda: iter(()))
    engine = make_engine(SQLitePool, write_timeout=0.05)
    await create_items(engine)
    with closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            with pytest.raises(WriteTimeout) as raised:
                await connection.execute(UPDATE_FIRST)
    assert str(raised.value) == (
        "waited 0.05 s to write to app.db; another connection, whose process cannot be "
        "determined, holds SQLite's lock; end that transaction or raise write_timeout "
        "(database is locked)"
    )


async def test_a_holder_that_waits_no_more(path: Path, write: Write) -> None:
    """The error does not say that it is waiting."""
    turn = turn_of(path)
    with OtherProcess(path) as other:
        other.execute("BEGIN IMMEDIATE")
        async with behind(path, write):
            other.execute("ROLLBACK")
        async with SQLiteDatabase(path) as db, db.write() as session:
            await session.execute(UPDATE_FIRST)
            with pytest.raises(WriteTimeout) as raised:
                await asyncio.ensure_future(turn.acquire(0.0))
    assert "itself" not in str(raised.value)


async def test_a_holder_at_work(path: Path, make_engine: MakeEngine) -> None:
    """It has met the lock, and holds it now: its own work is what takes long."""
    engine, turn = make_engine(SQLitePool), turn_of(path)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        holder = turn.holder
        assert holder is not None
        turn.meet_busy()
        holder.idle_since = None  # a statement is running
        assert "another connection of this process" in holder.describe_holder()
        turn._met_busy_at -= 1.0
        assert "itself" not in holder.describe_holder()
    await until(lambda: turn.holder is None)
