"""Engines whose statements are traced, without a clock."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from sa_sqlite_pool.transactions import placement
from tests.conftest import MakeEngine
from tests.helpers import create_items
from tests.placement.work import READ, Trace, learn


@pytest.fixture
def trace(request: pytest.FixtureRequest) -> Trace:
    if request.config.getoption("--placement") != "auto":
        pytest.skip("this is about the placement that learns")
    return Trace()


@pytest.fixture(params=[SQLitePool, WriterPool], ids=["swap-in", "writer"])
async def engine(
    make_engine: MakeEngine, trace: Trace, request: pytest.FixtureRequest
) -> AsyncEngine:
    """Provide an engine that writes, with the table ``items``, and no checkpoint since."""
    made = make_engine(request.param, on_connect=trace.on_connect)
    await create_items(made, 200)
    return made


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything short apart from its steps, on a file that was created long ago."""
    monkeypatch.setattr("sa_sqlite_pool.wal.monitor._RECENT_NS", 0)
    monkeypatch.setattr(placement, "SHORT_SECONDS", 60.0)
    monkeypatch.setattr(placement, "_LONG_SECONDS", 60.0)


@pytest.fixture
async def reader(make_engine: MakeEngine, trace: Trace) -> AsyncEngine:
    """Provide a reader engine that has learnt ``READ``."""
    await create_items(make_engine(WriterPool))
    made = make_engine(ReaderPool, on_connect=trace.on_connect)
    await learn(made, READ)
    return made
