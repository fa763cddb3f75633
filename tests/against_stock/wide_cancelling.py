"""Steps whose task is cancelled in the middle of a statement, and steps that lose the connection.

In AUTOCOMMIT nothing is cancelled: there stock commits a statement that was cancelled, by promise
this package does not.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from .operations import Block, Step

_STATEMENTS = (
    "SELECT pause(n) FROM anchors",
    "UPDATE anchors SET n = pause(n) + 100",
    "INSERT INTO strict (n) SELECT pause(n) FROM anchors",
    "INSERT INTO strict (n) SELECT pause(n) FROM anchors RETURNING id",
    "DELETE FROM items WHERE pause(id) > 0",
)


class Pause:
    """An SQL function that cancels the task of its statement, and returns after that."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    async def run(self, executor: AsyncConnection | AsyncSession, sql: str) -> str:
        """Execute ``sql``. Return what became of it, after the cancellation if there was one."""
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            await executor.execute(text(sql))
        except asyncio.CancelledError:
            if hasattr(task, "uncancel"):
                task.uncancel()
            return "cancelled"
        finally:
            self._task = None
        return "executed"

    def __call__(self, value: object) -> object:
        task, self._task = self._task, None
        if task is None:
            return value
        cancelled = threading.Event()
        loop = task.get_loop()

        def cancel() -> None:
            task.cancel()
            loop.call_soon(cancelled.set)

        loop.call_soon_threadsafe(cancel)
        assert cancelled.wait(20)
        return value


pause = Pause()


async def cancel(executor: AsyncConnection | AsyncSession, block: Block) -> object:
    if block.autocommit:
        return None
    found = await pause.run(executor, block.say(block.rng.choice(_STATEMENTS)))
    if isinstance(executor, AsyncSession):
        return found, executor.in_transaction(), executor.is_active
    return found, executor.in_transaction(), executor.invalidated


async def cancel_in_savepoint(executor: AsyncConnection | AsyncSession, block: Block) -> object:
    if block.autocommit:
        return None
    await executor.execute(text("UPDATE anchors SET n = n + 1"))
    async with executor.begin_nested():
        return await pause.run(executor, block.say(block.rng.choice(_STATEMENTS)))


async def cancel_and_roll_back(executor: AsyncConnection | AsyncSession, block: Block) -> object:
    found = await cancel(executor, block)
    block.savepoints.clear()
    await executor.rollback()
    return found, executor.in_transaction()


async def invalidate(executor: AsyncConnection | AsyncSession, block: Block) -> object:
    await executor.rollback()
    block.savepoints.clear()
    await executor.execute(text("SELECT 1"))
    await executor.invalidate()
    gc.collect()  # as in ``operations.py``: stock's connection keeps its lock until then
    return executor.in_transaction()


async def dispose(executor: AsyncConnection | AsyncSession, _: Block) -> object:
    """The engine is disposed of while one of its connections is checked out."""
    engine = executor.engine if isinstance(executor, AsyncConnection) else executor.bind
    await engine.dispose()  # type: ignore[union-attr]
    return None


async def detach(connection: AsyncConnection, block: Block) -> object:
    """A connection that was detached is closed at the end of the block."""
    await connection.rollback()
    block.savepoints.clear()
    (await connection.get_raw_connection()).detach()
    return None


ON_BOTH: list[Step] = [cancel, cancel_in_savepoint, cancel_and_roll_back, invalidate]
