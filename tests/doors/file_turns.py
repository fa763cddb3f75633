"""Helpers that the tests of the turn between processes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    SQLitePool,
    WriterPool,
)
from tests.helpers import (
    UPDATE_FIRST,
    create_items,
    turn_of,
)


@pytest.fixture(params=[SQLitePool, WriterPool])
async def engine(request: pytest.FixtureRequest, make_engine: Any) -> AsyncEngine:
    """Return an engine of each kind that writes, with its connection open."""
    engine: AsyncEngine = make_engine(request.param, write_timeout=10.0)
    await create_items(engine)
    return engine


async def update(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)


def turn_waits(path: Path) -> bool:
    """Return whether a task of this process waits for the file turn."""
    return turn_of(path)._file._waiting is not None
