"""coverage.py, profilers and debuggers keep a stack of the calls in a thread.

A greenlet that is left in the middle of its calls puts such a stack out of step. On a stock engine
it is correct again when the greenlet has ended, so coverage.py needs no setting.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext import asyncio as stock

import sa_sqlite_pool
from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool.compat.greenlets import Spawned
from tests.helpers import end_idle

Begin = Callable[[], AbstractAsyncContextManager[stock.AsyncSession]]
"""A session whose transaction is committed at the end."""


class Tracer:
    """Acts as coverage.py: counts a line for the file of the last call that has not ended."""

    def __init__(self) -> None:
        self.executed: set[tuple[str, int]] = set()
        self.counted: set[tuple[str, int]] = set()
        self._files: list[str] = []

    def call(self, frame: FrameType, event: str, argument: object) -> Any:
        self._files.append(frame.f_code.co_filename)
        return self._within

    def _within(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "return":
            self._files.pop()
        elif frame.f_code.co_filename == __file__:
            line = frame.f_code.co_name, frame.f_lineno
            self.executed.add(line)
            if self._files[-1] == __file__:
                self.counted.add(line)
        return self._within


async def use_stock(path: Path, placement: str) -> None:
    engine = stock.create_async_engine(f"sqlite+aiosqlite:///{path}")
    await use(stock.async_sessionmaker(engine).begin)
    await engine.dispose()


async def use_pool(path: Path, placement: str) -> None:
    engine = stock.create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, placement=placement
    )
    await use(stock.async_sessionmaker(engine).begin)
    await engine.dispose()


async def use_names(path: Path, placement: str) -> None:
    engine = sa_sqlite_pool.create_async_engine(f"sqlite+aiosqlite:///{path}", placement=placement)
    await use(sa_sqlite_pool.async_sessionmaker(engine).begin)
    await engine.dispose()


async def use_facade(path: Path, placement: str) -> None:
    async with SQLiteDatabase(path, placement=placement) as db:
        await use(db.write)
        assert await db.run_read(count) == 3


def count(session: Any) -> int:
    return int(session.scalar(text("SELECT count(*) FROM t")))


async def use(begin: Begin) -> None:
    """Run an application in which each line of its functions is executed."""
    async with begin() as session:
        await session.execute(text("CREATE TABLE t (x)"))
        await asyncio.sleep(0)
    for number in range(3):
        await add(begin, number)
    async with begin() as session:
        total = await session.scalar(text("SELECT count(*) FROM t"))
        assert total == 3


async def add(begin: Begin, number: int) -> None:
    async with begin() as session:
        await session.execute(text("INSERT INTO t VALUES (:x)"), {"x": number})
        result = await session.execute(text("SELECT x FROM t WHERE x = :x"), {"x": number})
        found = result.all()
        assert len(found) == 1


@pytest.mark.parametrize("placement", ["auto", "thread"])
@pytest.mark.parametrize("program", [use_stock, use_pool, use_names, use_facade])
def test_no_line_of_the_application_is_missed(path: Path, program: Any, placement: str) -> None:
    """This includes lines after a statement, whatever has been awaited for it."""
    end_idle(Spawned)  # the test is about greenlets that start under the tracer
    tracer = Tracer()
    before = sys.gettrace()
    sys.settrace(tracer.call)
    try:
        asyncio.run(program(path, placement))
    finally:
        sys.settrace(before)
    assert tracer.executed
    assert tracer.executed == tracer.counted
