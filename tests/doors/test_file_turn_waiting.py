"""Connections that wait for the turn between processes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import (
    DatabaseClosedError,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    WriteTimeout,
)
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.transactions import locks
from sa_sqlite_pool.turn.file_requests import FileLockRequest
from sa_sqlite_pool.turn.file_turn import FileTurn
from sa_sqlite_pool.wal import checkpointing
from tests.doors.file_turns import engine, turn_waits, update
from tests.helpers import (
    UPDATE_FIRST,
    amounts,
    create_items,
    turn_of,
    until,
    until_waiting,
)
from tests.turn.locks import blocked, is_free, other_process

__all__ = ["engine"]

ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who waits"
)


class Clock:
    """A clock that is ``later`` seconds ahead."""

    def __init__(self) -> None:
        self.later = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.later


class TestWaiting:
    """Another process holds the turn."""

    async def test_until_it_is_free(self, engine: AsyncEngine, path: Path) -> None:
        """The loop and readers continue while a writer waits."""
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
            assert not task.done()
        await task
        assert is_free(path)

    async def test_in_line_here(self, engine: AsyncEngine, path: Path) -> None:
        """One task of the process waits for the file, the others behind it; all are served."""
        with other_process(path):
            tasks = [asyncio.create_task(update(engine)) for _ in range(5)]
            await until_waiting(4, turn_of(path))
            await until(lambda: turn_waits(path))
        await asyncio.gather(*tasks)
        assert await amounts(engine) == [5, 0, 0]

    @ON_LINUX
    @pytest.mark.parametrize("count", [1, 3])
    async def test_between_two_writes_others_have_theirs(
        self, engine: AsyncEngine, path: Path, count: int
    ) -> None:
        """Fair turns: a process with a long line of its own still passes the turn on."""
        written: list[str] = []

        async def write(connection: AsyncConnection, name: str) -> None:
            await connection.execute(UPDATE_FIRST)
            written.append(name)
            await until(lambda: blocked(path, "turn"))  # the other process stands in line
            await connection.commit()

        async def one(name: str) -> None:
            async with engine.connect() as connection:
                await write(connection, name)

        turn_of(path)._file._clock = lambda: 100.0  # it held the turn just now, however slow this
        other = FileTurn(str(path))
        request = other.acquire_nowait()
        assert request is not None
        tasks = [asyncio.create_task(one(str(number))) for number in range(count)]
        await until(lambda: blocked(path, "turn"))

        async def again(request: FileLockRequest | None) -> None:
            assert request is not None
            request.release()
            for _ in range(count):
                request = await other.acquire(10.0)
                assert request is not None
                written.append("other")
                await until(lambda: len(written) == 2 * count or blocked(path, "turn"))
                request.release()

        await asyncio.gather(*tasks, again(request))
        assert sorted(written[::2]) == [str(number) for number in range(count)]
        assert written[1::2] == ["other"] * count

    async def test_time_is_over(self, make_engine: Any, path: Path) -> None:
        """Clear waits: the error names the process, and nothing stays acquired."""
        for kind in (SQLitePool, WriterPool):
            engine = make_engine(kind, write_timeout=0.05)
            await create_items(engine, count=0)
            with (
                other_process(path),
                pytest.raises(
                    WriteTimeout,
                    match=r"waited 0\.05 s to write to app\.db; another process holds the turn, "
                    r"0 more of this process waiting in line; shorten the transaction there or",
                ),
            ):
                await update(engine)
            assert turn_of(path).holder is None
            await until(lambda: is_free(path))

    async def test_who_waits_behind_is_told(self, make_engine: Any, path: Path) -> None:
        """The message says that the holder of the turn here is itself waiting."""
        patient, hasty = make_engine(WriterPool), make_engine(WriterPool, write_timeout=0.05)
        await create_items(patient)
        async with patient.connect() as connection:
            with other_process(path):
                first = asyncio.create_task(connection.execute(UPDATE_FIRST))
                await until(lambda: turn_waits(path))
                with pytest.raises(WriteTimeout, match="itself waiting for another process"):
                    await asyncio.create_task(update(hasty))
            await first
            with pytest.raises(WriteTimeout) as caught:
                await asyncio.create_task(update(hasty))
        assert "itself waiting" not in str(caught.value)

    async def test_both_waits_are_one(self, make_engine: Any, path: Path) -> None:
        """Time spent waiting in line here is deducted from the wait for the file."""
        engine = make_engine(WriterPool, write_timeout=10.0)
        await create_items(engine)
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            second = asyncio.create_task(engine.connect().__aenter__())
            await until_waiting(1, turn_of(path))
        waited = await second
        holder = turn_of(path).holder
        assert holder is not None
        assert holder.seconds_waited > 0
        holder.seconds_waited = 10.0
        with other_process(path), pytest.raises(WriteTimeout, match=r"waited 10\.00 s"):
            await asyncio.wait_for(waited.execute(UPDATE_FIRST), 5)
        other = FileTurn(str(path))
        while (request := other.acquire_nowait()) is None:  # its thread abandons its wait
            await asyncio.sleep(0)
        task = asyncio.create_task(waited.execute(UPDATE_FIRST))
        await until(lambda: turn_waits(path))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()  # the first wait counts only once
        request.release()
        await task
        await waited.close()

    async def test_both_waits_of_a_swap_in_connection(
        self, make_engine: Any, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same applies where the statement acquires the turn."""
        clock = Clock()
        monkeypatch.setattr(locks, "time", clock)
        engine = make_engine(SQLitePool, write_timeout=10.0)
        await create_items(engine)
        await self.times_out(path, clock, update(engine))

    async def test_both_waits_of_a_checkpoint(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same applies to a checkpoint."""
        clock = Clock()
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine)
            monkeypatch.setattr(checkpointing, "time", clock)
            await self.times_out(path, clock, db.checkpoint(timeout=10.0))

    async def times_out(self, path: Path, clock: Clock, work: Any) -> None:
        """Use up the whole time limit before the permit; another process holds the file."""
        turn = turn_of(path)
        permit = await turn.acquire(1.0)
        task = asyncio.create_task(work)
        await until_waiting(1, turn)
        clock.later = 10.0
        with other_process(path):
            turn.release(permit)
            with pytest.raises(WriteTimeout, match=r"waited 10\.00 s"):
                await asyncio.wait_for(task, 5)

    async def test_cancelled(self, engine: AsyncEngine, path: Path) -> None:
        """Clean cancellation: no turn is acquired, neither here nor between processes."""
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert turn_of(path).holder is None
        await update(engine)
        assert await amounts(engine) == [1, 0, 0]

    async def test_closed(self, path: Path) -> None:
        """No hang: a task that waits for another process raises the error."""
        db = SQLiteDatabase(path, write_timeout=10.0)
        await db.open()
        await create_items(db.writer_engine)
        with other_process(path):
            task = asyncio.create_task(update(db.writer_engine))
            await until(lambda: turn_waits(path))
            await db.close()
            with pytest.raises(DatabaseClosedError):
                await task

    async def test_closed_in_line_here(self, engine: AsyncEngine, path: Path) -> None:
        """The same applies to tasks that wait behind a task of this process."""
        turn = turn_of(path)
        permit = await turn.acquire(1.0)
        task = asyncio.create_task(update(engine))
        await until_waiting(1, turn)
        assert isinstance(engine.pool, FairPool)
        engine.pool.refuse(lambda: DatabaseClosedError("it was closed"))
        with pytest.raises(DatabaseClosedError, match="it was closed"):
            await asyncio.wait_for(task, 5)
        turn.release(permit)

    async def test_closed_before_it_waits(self, path: Path) -> None:
        """No hang: not even for a task that starts to wait while the database is being closed."""
        db = SQLiteDatabase(path, write_timeout=30.0)
        await db.open()
        await create_items(db.writer_engine)
        connection = await db.writer_engine.connect()
        closing = asyncio.create_task(db.close(0.05))
        await until(lambda: "closing" in repr(db))
        with other_process(path):
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await closing
            with pytest.raises((DatabaseClosedError, OperationalError), match="closed"):
                await asyncio.wait_for(task, 5)
        await connection.close()

    async def test_disposed_of(self, engine: AsyncEngine, path: Path) -> None:
        """``dispose()`` closes connections at rest, and a waiting task is served."""
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
            await engine.dispose()
        await task
        assert await amounts(engine) == [1, 0, 0]
        assert is_free(path)

    async def test_taken_away(self, engine: AsyncEngine, path: Path) -> None:
        """A turn granted to a detached connection after it was closed is released.

        No other part of the program looks after that connection any more.
        """
        turn = turn_of(path)
        async with engine.connect() as connection:
            (await connection.get_raw_connection()).detach()
            with other_process(path):
                task = asyncio.create_task(connection.execute(UPDATE_FIRST))
                await until(lambda: turn_waits(path))
                assert isinstance(engine.pool, FairPool)
                engine.pool.recall("it was closed")
            with pytest.raises(OperationalError, match="no active connection: it was closed"):
                await task
        await until(lambda: turn.holder is None)  # a thread releases it
        await until(lambda: is_free(path))
