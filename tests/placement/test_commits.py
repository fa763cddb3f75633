"""COMMIT runs on the event loop if it only appends to the log."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, WalSettings, WriterPool
from tests.conftest import MakeEngine
from tests.helpers import create_items
from tests.placement.work import LEARNING, WRITE, Run, Trace, learn, run
from tests.wal.others import OtherProcess


@pytest.mark.parametrize(
    "options",
    [
        {"pragmas": {"synchronous": "FULL"}},
        {"pragmas": {"journal_mode": "TRUNCATE"}},
        {"pragmas": {"wal_autocheckpoint": 1000}},
        {"wal": WalSettings(soft_limit=None)},
        {"wal": WalSettings(soft_limit=1, hard_limit=1)},
    ],
    ids=["full", "truncate", "autocheckpoint", "not-kept", "large"],
)
async def test_a_commit_that_may_wait_for_the_disk(
    make_engine: MakeEngine, trace: Trace, options: dict[str, Any]
) -> None:
    """It syncs, or runs a checkpoint, or some work on the log is due."""
    engine = make_engine(WriterPool, on_connect=trace.on_connect, **options)
    await create_items(engine)
    with trace.recorded() as runs:
        for _ in range(2 * LEARNING):
            await run(engine, WRITE)
    assert not any(inline for sql, inline in runs if sql == "COMMIT")
    in_log = options.get("pragmas", {}).get("journal_mode") != "TRUNCATE"
    assert (Run(WRITE, True) in runs) is in_log


@pytest.mark.parametrize(
    "setting",
    ["PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 1000", "ATTACH ':memory:' AS b"],
)
async def test_a_setting_of_the_application(
    engine: AsyncEngine, trace: Trace, setting: str
) -> None:
    """It applies whenever the application changes it."""
    await learn(engine, WRITE)
    async with engine.connect() as connection:
        await connection.execute(text(setting))
        await connection.commit()
        for _ in range(LEARNING):
            with trace.recorded() as runs:
                await connection.execute(text(WRITE))
                await connection.commit()
            assert runs[-1] == Run("COMMIT", False)


async def test_autocommit(engine: AsyncEngine, trace: Trace) -> None:
    """Each write is its own commit, and runs where the COMMIT would."""
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        for _ in range(LEARNING):
            await connection.execute(text(WRITE))
        assert Run(WRITE, True) not in trace.runs  # no COMMIT has been learnt yet
    await learn(engine, WRITE)
    with trace.recorded() as runs:
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(WRITE))
    assert runs[0] == Run(WRITE, True)


async def test_the_first_commit_after_a_checkpoint(path: Path, trace: Trace) -> None:
    """It starts the log again, and syncs it, whichever process ran the checkpoint."""
    async with SQLiteDatabase(path, on_connect=trace.on_connect) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)

        async def commits(count: int) -> list[bool]:
            with trace.recorded() as runs:
                for _ in range(count):
                    await run(db.writer_engine, WRITE)
            return [inline for sql, inline in runs if sql == "COMMIT"]

        assert await commits(2) == [True, True]
        await db.checkpoint()
        assert await commits(2) == [False, True]
        with OtherProcess(path) as other:
            assert other.execute("PRAGMA wal_checkpoint(PASSIVE)").startswith("[(0, ")
        assert await commits(2) == [False, True]


async def test_a_log_above_the_soft_limit(path: Path, trace: Trace) -> None:
    """The keeper moves it when idle, so a commit only needs to append."""
    async with SQLiteDatabase(
        path, wal=WalSettings(soft_limit=1), on_connect=trace.on_connect
    ) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)
        with trace.recorded() as runs:
            for _ in range(9):
                await run(db.writer_engine, WRITE)
        assert db._keeper is not None
        assert db._keeper._timer_runs()
        assert [inline for sql, inline in runs if sql == "COMMIT"] == [True] * 9


async def test_a_commit_that_makes_the_log_too_large(
    path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that must be moved at once is moved in the thread, after the next commit."""
    async with SQLiteDatabase(path, on_connect=trace.on_connect) as db:
        await create_items(db.writer_engine)
        await learn(db.writer_engine, WRITE)
        keeper = db._keeper
        assert keeper is not None
        moved_in: list[bool] = []

        def catch_up(_: sqlite3.Connection) -> None:
            moved_in.append(threading.current_thread() is threading.main_thread())

        monkeypatch.setattr(keeper.monitor, "catch_up", catch_up)
        monkeypatch.setattr(keeper, "_task_runs", lambda: True)
        size = keeper.monitor.size()
        assert size is not None
        limits = WalSettings(soft_limit=1, hard_limit=size // 2 + 1)
        monkeypatch.setattr(keeper.monitor, "settings", limits)
        with trace.recorded() as runs:
            for _ in range(2):
                await run(db.writer_engine, WRITE)
        assert [inline for sql, inline in runs if sql == "COMMIT"] == [True, False]
        assert moved_in == [False]


async def test_a_checkpoint_of_a_moment_ago(
    path: Path, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one would set the same time on the file, so the two could not be told apart."""
    monkeypatch.setattr("sa_sqlite_pool.wal.monitor._RECENT_NS", 3_600 * 10**9)
    async with SQLiteDatabase(path, on_connect=trace.on_connect) as db:
        await create_items(db.writer_engine)
        with trace.recorded() as runs:
            await learn(db.writer_engine, WRITE, WRITE)
        assert not any(inline for sql, inline in runs if sql == "COMMIT")
