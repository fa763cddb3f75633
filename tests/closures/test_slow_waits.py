"""A call of ``run_read()`` that was taken, and put back because of a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures.line import Call, Line
from sa_sqlite_pool.closures.read_group import ReadGroup
from sa_sqlite_pool.closures.thread_connection import ThreadConnection
from sa_sqlite_pool.pools.impl import WriterPool


@pytest.mark.parametrize("handed_over", [False, True])
async def test_one_that_is_put_back_waits_on(db: SQLiteDatabase, handed_over: bool) -> None:
    """It has not been served, whatever happens to it; another group runs it."""

    def body(_: ThreadConnection) -> int:
        return 7

    call: Call[Any] = Call(None, body, 30.0, 30.0)
    line = Line(asyncio.get_running_loop())
    line.calls[call] = None
    group = ReadGroup(db._closures._reads, line)
    assert group.take() is call
    assert call.taken_at is not None
    if handed_over:
        group._hand_over()
    pool = db.writer_engine.sync_engine.pool
    assert isinstance(pool, WriterPool)
    group.put_back(call, pool.database_file.snapshots)
    assert call.taken_at is None
    group._report()  # it is not among those that have run
    assert not call._reported
    group._hand_over()
    assert await call == 7
