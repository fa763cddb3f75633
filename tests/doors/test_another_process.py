"""Another process holds the turn when a statement requests it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool, WriterPool
from sa_sqlite_pool.turn.file_requests import FileLockRequest
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.helpers import SleepingFunction, turn_of, until
from tests.turn.locks import is_free

ENDLESS_INSERT = (
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n"
)


@contextlib.contextmanager
def other_process(path: Path) -> Iterator[None]:
    """Hold the turn, as another process that uses the package does."""
    request = FileTurn(str(path)).acquire_nowait()
    assert request is not None
    with request:
        yield


def turn_waits(path: Path) -> bool:
    """Return whether a task of this process waits for the file turn."""
    return turn_of(path)._file._waiting is not None


class TestAnotherProcess:
    """In a transaction, a statement that has waited for another process runs like any other."""

    @pytest.fixture(params=[SQLitePool, WriterPool])
    async def engine(self, request: pytest.FixtureRequest, make_engine: Any) -> AsyncEngine:
        """Return an engine whose connections have the function ``sleep()``."""
        self.sleeping = SleepingFunction()
        engine: AsyncEngine = make_engine(
            request.param, write_timeout=10.0, on_connect=self.sleeping.on_connect
        )
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (x UNIQUE)"))
        return engine

    async def insert(self, engine: AsyncEngine, sql: str, **options: Any) -> None:
        async with engine.connect() as connection:
            await connection.execution_options(**options)
            await connection.execute(text(sql))
            await connection.commit()

    async def rows(self, engine: AsyncEngine) -> list[Any]:
        async with engine.connect() as connection:
            return list(await connection.scalars(text("SELECT x FROM t")))

    async def waiting(self, engine: AsyncEngine, path: Path, sql: str, **options: Any) -> Any:
        task = asyncio.create_task(self.insert(engine, sql, **options))
        await until(lambda: turn_waits(path))
        return task

    @pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}])
    async def test_the_statement(
        self, engine: AsyncEngine, path: Path, options: dict[str, Any]
    ) -> None:
        """In a transaction, or as one by itself, it runs once, and the turn is released."""
        with other_process(path):
            task = await self.waiting(engine, path, "INSERT INTO t VALUES (1)", **options)
        await task
        assert await self.rows(engine) == [1]
        assert is_free(path)

    async def test_an_error(self, engine: AsyncEngine, path: Path) -> None:
        """It is raised where the statement is awaited; the transaction continues or never began."""
        await self.insert(engine, "INSERT INTO t VALUES (1)")
        with other_process(path):
            task = await self.waiting(engine, path, "INSERT INTO t VALUES (1)")
        with pytest.raises(IntegrityError):
            await task
        assert is_free(path)
        assert turn_of(path).holder is None

    async def test_nobody_waits_for_a_long_one(self, engine: AsyncEngine, path: Path) -> None:
        """The line is free while a long statement runs, so the next process can stand there."""
        with other_process(path):
            task = await self.waiting(engine, path, "INSERT INTO t SELECT sleep()")
        await until(self.sleeping.inside.is_set)
        next_one = FileTurn(str(path))
        assert next_one._line.acquire_nowait()
        next_one._line.release()
        self.sleeping.leave.set()
        await task

    async def test_cancelled_while_it_runs(self, engine: AsyncEngine, path: Path) -> None:
        """Clean cancellation: the statement is stopped, rolled back, and the turn released."""
        with other_process(path):
            task = await self.waiting(engine, path, ENDLESS_INSERT)
        await until(lambda: turn_of(path)._file._waiting is None or not is_free(path))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: turn_of(path).holder is None and is_free(path))
        assert await self.rows(engine) == []

    async def test_cancelled_and_not_yet_stopped(self, engine: AsyncEngine, path: Path) -> None:
        """The turn is held, and the task not resumed, until the thread has released it."""
        with other_process(path):
            task = await self.waiting(engine, path, "INSERT INTO t SELECT sleep()")
        await until(self.sleeping.inside.is_set)
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
            assert not task.done()
            assert not is_free(path)
        self.sleeping.leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: turn_of(path).holder is None and is_free(path))
        assert await self.rows(engine) == []

    async def test_cancelled_a_moment_before(
        self, engine: AsyncEngine, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cancellation between the grant of the turn and the statement leaves nothing.

        Thread              | Task
        the turn is granted |
                            | cancelled: drops the statement
        releases it         |
        """
        granted, cancelled = threading.Event(), threading.Event()
        begin = FileLockRequest.begin

        def begin_late(request: FileLockRequest) -> None:
            granted.set()
            assert cancelled.wait(10)
            begin(request)

        monkeypatch.setattr(FileLockRequest, "begin", begin_late)
        with other_process(path):
            task = await self.waiting(engine, path, "INSERT INTO t VALUES (1)")
        await until(granted.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        await until(lambda: turn_of(path).holder is None and is_free(path))
        monkeypatch.undo()
        await self.insert(engine, "INSERT INTO t VALUES (2)")
        assert await self.rows(engine) == [2]

    async def test_past_who_is_stopped_in_line(self, engine: AsyncEngine, path: Path) -> None:
        """The thread has not acquired the turn at its place in line, and it still runs once."""
        first = FileTurn(str(path))
        with other_process(path):
            assert first._line.acquire_nowait()
            task = await self.waiting(engine, path, "INSERT INTO t VALUES (1)")
        waiting = turn_of(path)._file._waiting
        assert waiting is not None
        waiting._wake()  # as after half a second
        await task
        first._line.release()
        assert await self.rows(engine) == [1]
        await until(lambda: is_free(path))
