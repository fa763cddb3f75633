"""Programs that write without the turn between processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.turn import courtesy
from sa_sqlite_pool.turn.courtesy import Courtesy
from tests.doors.file_turns import engine, turn_waits, update
from tests.helpers import (
    UPDATE_FIRST,
    create_items,
    driver,
    turn_of,
    until,
)
from tests.turn.locks import is_free, other_process

__all__ = ["engine"]


class TestOutsiders:
    """A program that does not know the package holds SQLite's lock."""

    @pytest.mark.needs_thread
    async def test_the_turn_is_kept_meanwhile(self, engine: AsyncEngine, path: Path) -> None:
        """A task retries at its own place in line, and the others stay behind it."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(update(engine))
        holder = None
        for _ in range(50):
            await until(lambda: turn_of(path).holder)
            holder = holder or turn_of(path).holder
            assert turn_of(path).holder is holder
            assert not is_free(path)
            await asyncio.sleep(0)
        outsider.execute("COMMIT")
        outsider.close()
        await task
        assert is_free(path)

    @pytest.mark.needs_thread
    async def test_success_at_the_next_try(self, engine: AsyncEngine, path: Path) -> None:
        """The turn is held for the retry, and released although the connection stays out."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            held, worker = turn_of(path).holder, (await driver(connection)).worker
            before = worker.hops
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await until(lambda: worker.hops >= before + 2)
            outsider.close()
            await task
            assert turn_of(path).holder is held
            assert is_free(path)

    @pytest.mark.needs_thread
    async def test_an_error_at_the_next_try(self, engine: AsyncEngine, path: Path) -> None:
        """The turn is held for the retry, and released although the connection stays out."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            held = turn_of(path).holder
            tries = (await driver(connection)).worker.hops
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            raw = await driver(connection)
            await until(lambda: raw.worker.hops >= tries + 3)
            outsider.execute("DROP TABLE items")
            outsider.execute("COMMIT")
            outsider.close()
            with pytest.raises(OperationalError, match="no such table"):
                await task
            assert turn_of(path).holder is held
            assert is_free(path)

    async def test_files_that_were_removed(self, engine: AsyncEngine, path: Path) -> None:
        """At SQLite's lock, a writer finds the new files, and lines up with the other process."""
        await self.remove_files(path, update(engine))
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
        await task

    async def test_files_that_were_removed_before_a_checkpoint(self, path: Path) -> None:
        """A checkpoint looks for new turn files, too."""
        async with SQLiteDatabase(path, write_timeout=10.0) as db:
            await create_items(db.writer_engine)
            await self.remove_files(path, db.checkpoint())

    async def remove_files(self, path: Path, work: Any) -> None:
        """Let another process lock new files and write; wait until ``work`` has noticed."""
        before = turn_of(path)._file._turn
        os.unlink(f"{path}-turn")
        with other_process(path):
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(work)
            await until(lambda: turn_of(path)._file._turn is not before)
            other.execute("COMMIT")
            other.close()
            await task

    async def test_giving_up(self, engine: AsyncEngine, path: Path) -> None:
        """A cancellation between two tries leaves nothing behind."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(update(engine))
        await until(lambda: turn_of(path).holder)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: turn_of(path).holder is None)
        await until(lambda: is_free(path))
        outsider.close()

    async def test_they_are_left_some_time(
        self, engine: AsyncEngine, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A known outsider is left some time, while the turn is held so that no task goes first."""
        monkeypatch.setattr(courtesy, "_LONGEST_SECONDS", 0.5)
        turn = turn_of(path)
        turn.courtesy.meet()
        turn.courtesy.add_debt(10.0)
        monkeypatch.setattr(Courtesy, "add_debt", lambda *_: None)  # no debt from the update
        task = asyncio.create_task(update(engine))
        await until(lambda: not is_free(path))
        outsider = sqlite3.connect(path, isolation_level=None, timeout=0)
        outsider.execute("BEGIN IMMEDIATE")  # the lock is free
        outsider.execute("ROLLBACK")
        outsider.close()
        await task
        assert turn.courtesy.owed == 0.0
        assert is_free(path)

    async def test_a_cancellation_in_that_time(self, engine: AsyncEngine, path: Path) -> None:
        """Clean cancellation: the turn is released."""
        turn = turn_of(path)
        turn.courtesy.meet()
        turn.courtesy.add_debt(10.0)
        task = asyncio.create_task(update(engine))
        await until(lambda: not is_free(path))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_free(path)
        await until(lambda: turn.holder is None)

    async def test_who_is_met_is_owed(self, engine: AsyncEngine, path: Path) -> None:
        """An outsider's time with the lock reduces the debt to it; time held here increases it."""
        turn = turn_of(path)
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(update(engine))
        await until(lambda: turn.courtesy._balance < 0)
        outsider.execute("COMMIT")
        outsider.close()
        await task
        turn.courtesy._balance = 0.0
        await update(engine)
        assert turn.courtesy._balance > 0
