"""Servers that do not respond, and the required state after an operation on them has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from examples.local_postgresql import PostgreSQL
from sa_sqlite_pool.servers.database import ServerDatabase
from sa_sqlite_pool.servers.pool import ServerPool
from tests.postgresql import until

SOON_SECONDS = 8.0
"""Longer than a failing connection attempt takes, and far less than forever."""

A_MOMENT_SECONDS = 4.5
"""Longer than a server may take to respond, and less than a failing connection attempt."""


@contextmanager
def frozen_later(*servers: PostgreSQL) -> Iterator[Callable[[], None]]:
    """Yield a function that suspends ``servers``; they resume after the block.

    All their processes are suspended, but the system still accepts connections for them.
    """

    def freeze() -> None:
        for server in servers:
            server.freeze()

    try:
        yield freeze
    finally:
        for server in servers:
            server.thaw()


@contextmanager
def frozen(*servers: PostgreSQL) -> Iterator[None]:
    """Suspend ``servers`` during the block."""
    with frozen_later(*servers) as freeze:
        freeze()
        yield


@contextmanager
def standing_still(*replicas: PostgreSQL) -> Iterator[None]:
    """Pause replay on ``replicas`` during the block: they respond, but show no new commits."""
    for replica in replicas:
        replica.sql("SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        for replica in replicas:
            replica.sql("SELECT pg_wal_replay_resume()")


async def soon(work: Awaitable[Any], seconds: float = SOON_SECONDS) -> BaseException | None:
    """Return the error of ``work``; fail if it does not end soon."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert done, f"{work} has not ended after {seconds} s"
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception()


@asynccontextmanager
async def nothing_left(db: ServerDatabase) -> AsyncIterator[None]:
    """Check that, after the block, no permit is held, and no additional task is pending."""
    before = asyncio.all_tasks()
    yield
    for pool in pools(db):
        assert pool.checkedout() == 0
        for server in pool.servers:
            assert server.in_use == 0, server
            assert len(server.openings) == 0, server

    def nothing_runs() -> bool:
        left = asyncio.all_tasks() - before
        return all("is down" in task.get_name() for task in left)

    await until(nothing_runs, A_MOMENT_SECONDS)  # a cancelled query takes some time to end


def pools(db: ServerDatabase) -> list[ServerPool]:
    """Return the pools of a database."""
    found: list[Any] = [db.writer_engine.pool, db.reader_engine.pool]
    return found


class Barrier:
    """Tasks that wait for each other, and then for a server that the last of them suspends."""

    def __init__(self, tasks: int, freeze: Callable[[], None]) -> None:
        self._missing = tasks
        self._freeze = freeze
        self._all_here = asyncio.Event()

    async def arrive(self) -> None:
        """Wait for the others."""
        self._missing -= 1
        if not self._missing:
            self._freeze()
            self._all_here.set()
        await self._all_here.wait()

    async def passed(self) -> None:
        """Wait until each task waits in its next step."""
        await self._all_here.wait()
        for _ in range(50):
            await asyncio.sleep(0)
