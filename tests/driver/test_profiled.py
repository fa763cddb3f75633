"""What a profiler that follows tasks records of a task that waits for a statement."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase

COUNT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT max(i) FROM n"
)
profiled: ContextVar[bool] = ContextVar("profiled", default=False)


class Profiler:
    """Detects an await as pyinstrument does: a coroutine returns, and the next call or
    return happens outside of its context.
    """

    def __init__(self) -> None:
        self.awaits = self.other_leaves = 0
        self._inside = self._returned = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        inside = profiled.get()
        if self._inside and not inside:
            if self._returned:
                self.awaits += 1
            else:
                self.other_leaves += 1
        self._inside = inside
        self._returned = event == "return" and bool(frame.f_code.co_flags & inspect.CO_COROUTINE)


@contextmanager
def profiling() -> Iterator[Profiler]:
    profiler = Profiler()
    token = profiled.set(True)
    sys.setprofile(profiler)
    try:
        yield profiler
    finally:
        sys.setprofile(None)
        profiled.reset(token)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="pytest-asyncio's tasks are in Python then")
@pytest.mark.parametrize("placement", ["thread", "auto"])
async def test_a_statement_is_awaited_where_a_profiler_looks_for_it(
    tmp_path: Path, placement: str
) -> None:
    """It is not mistaken for work of the event loop."""
    database = SQLiteDatabase(tmp_path / "app.db", placement=placement)
    async with database as db, db.read() as session:
        await session.execute(text("SELECT 1"))
        with profiling() as profiler:
            await session.execute(text("SELECT 1"))  # short: it begins a lap
            await session.execute(text(COUNT.format(200_000)))
    assert profiler.awaits > 0 == profiler.other_leaves


async def test_a_statement_is_cancelled_under_a_profiler(tmp_path: Path) -> None:
    """The statement has ended before its task continues, and the connection is used again."""
    async with SQLiteDatabase(tmp_path / "app.db", placement="thread", readers=1) as db:
        with profiling():
            async with db.read() as session:
                endless = session.execute(text(COUNT.format(-1)))
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(endless, 0.05)
            async with db.read() as session:
                assert await session.scalar(text(COUNT.format(1000))) == 1000
