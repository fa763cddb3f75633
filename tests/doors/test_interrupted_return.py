"""A return that a signal handler interrupts: the connection and its permit are released."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.execution.loop_budget import LoopBudget


async def test_what_it_has_cost_is_not_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next task acquires the single connection nevertheless."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=SQLitePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=1.0,
    )
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))

    def interrupt(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(LoopBudget, "end_work", interrupt)
        with pytest.raises(ZeroDivisionError):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()
