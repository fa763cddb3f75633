"""When a ``checkin`` listener raises, the error is visible, and the next task gets a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from tests.helpers import create_items, turn_of

ONE_OF = {
    "swap-in": (SQLitePool, {"pool_size": 1, "max_overflow": 0}),
    "writer": (WriterPool, {}),
    "reader": (ReaderPool, {"pool_size": 1}),
}


@pytest.fixture(params=ONE_OF)
async def engine(request: pytest.FixtureRequest, path: Path) -> Any:
    """Return an engine with one connection, on a file with a table."""
    url = f"sqlite+aiosqlite:///{path}"
    writer = create_async_engine(url, poolclass=WriterPool)
    await create_items(writer)
    await writer.dispose()
    poolclass, options = ONE_OF[request.param]
    engine = create_async_engine(url, poolclass=poolclass, **options)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("target", ["engine", "class"])
async def test_a_listener_that_raises(engine: AsyncEngine, path: Path, target: str) -> None:
    """State that a later listener would clean up is gone at the next checkout; the turn is free."""

    def fail(*_: object) -> None:
        raise KeyError("mine")

    listened: Any = engine.sync_engine if target == "engine" else Pool
    event.listen(listened, "checkin", fail)
    try:
        for _ in range(3):
            with pytest.raises(KeyError, match="mine"):
                async with engine.connect() as connection:
                    (await connection.get_raw_connection()).info["mine"] = "to be undone"
                    await connection.execute(text("SELECT count(*) FROM items"))
    finally:
        event.remove(listened, "checkin", fail)
    async with engine.connect() as connection:
        assert "mine" not in (await connection.get_raw_connection()).info
        await connection.execute(text("SELECT count(*) FROM items"))
    assert not turn_of(path).locked()


async def test_what_other_listeners_are_told(engine: AsyncEngine) -> None:
    """If no listener raises, the others are called once per return, as usual."""
    told: list[Any] = []
    event.listen(engine.sync_engine, "checkin", lambda connection, _: told.append(connection))
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    assert len(told) == 2
    pool: Any = engine.pool
    assert pool.checkedin() == 1
