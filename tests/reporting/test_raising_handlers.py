"""A handler or filter of the application that raises: the package's operations do not fail."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.reporting.events import LogLookFailed, log, logger
from tests.helpers import UPDATE_FIRST, create_items, until_waiting

READ = text("SELECT id FROM items")


class Raising(logging.Handler):
    """A handler of the application that has a bug."""

    def __init__(self) -> None:
        super().__init__()
        self.called = 0

    def emit(self, _: logging.LogRecord) -> None:
        self.called += 1
        raise ValueError("of the handler")


@pytest.fixture
def raising() -> Iterator[Raising]:
    broken = Raising()
    logger.addHandler(broken)
    yield broken
    logger.removeHandler(broken)


@pytest.mark.usefixtures("raising")
@pytest.mark.parametrize("shown", [True, False])
def test_it_is_shown(
    shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is printed to stderr, as by ``logging`` itself, if ``logging.raiseExceptions`` is True."""
    monkeypatch.setattr(logging, "raiseExceptions", shown)
    log(LogLookFailed(database="app.db", error="broken"), "it failed")
    assert ("ValueError: of the handler" in capsys.readouterr().err) is shown


@pytest.mark.usefixtures("raising")
def test_a_stderr_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that cannot be shown is not raised, either."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    log(LogLookFailed(database="app.db", error="broken"), "it failed")


async def test_the_turn_is_not_lost(tmp_path: Path, raising: Raising) -> None:
    """A wait is logged after it has ended, when the task already holds the turn, or the reader."""
    limits: Any = {"slow_wait_warning": 0.0, "slow_statement_warning": 0.0}
    async with SQLiteDatabase(tmp_path / "app.db", readers=1, **limits) as db:
        await create_items(db.writer_engine)

        async def write() -> None:
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)
            await db.run_write(lambda session: session.execute(UPDATE_FIRST) and None)

        async def read() -> None:
            async with db.read() as session:
                await session.execute(READ)
            await db.run_read(lambda session: session.execute(READ).all())

        work = asyncio.gather(*(write() for _ in range(5)), *(read() for _ in range(5)))
        await asyncio.wait_for(work, 30)
        async with db.read() as session:
            assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 10
        assert raising.called
        assert db.statistics().engine("reader").holders == ()


class Interrupted(logging.Handler):
    """A handler in which a task is interrupted, by a signal or by a cancellation."""

    def emit(self, _: logging.LogRecord) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize("door", ["read", "write"])
async def test_what_is_interrupted_there_has_nothing(tmp_path: Path, door: str) -> None:
    """The turn, or the reader, that the task has just acquired passes to the next in line."""
    async with SQLiteDatabase(tmp_path / "app.db", readers=1, slow_wait_warning=0.0) as db:
        await create_items(db.writer_engine)
        block = getattr(db, door)
        pool: Any = (db.reader_engine if door == "read" else db.writer_engine).pool
        handler = Interrupted()

        async def use() -> None:
            async with block() as session:
                await session.execute(READ)

        async with block() as session:
            await session.execute(READ)
            waiting = asyncio.create_task(use())
            await until_waiting(1, pool)
            logger.addHandler(handler)
        try:
            with pytest.raises(asyncio.CancelledError):
                await waiting
        finally:
            logger.removeHandler(handler)
        await asyncio.wait_for(use(), 30)
        assert db.statistics().engine("reader" if door == "read" else "writer").holders == ()
