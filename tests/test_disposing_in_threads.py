"""Threads with loops of their own use one engine at the same moment, for the first or last time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.files.site import Site
from sa_sqlite_pool.opening.connector import Connector
from sa_sqlite_pool.opening.creator import Creator
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import amounts, create_items
from tests.test_disposing_in_memory import directory_of, is_empty

IN_MEMORY = "sqlite+aiosqlite://"


async def write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS items (id INTEGER)"))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a cached_property has a lock")
@pytest.mark.parametrize("in_memory", [False, True])
async def test_two_threads_use_an_engine_first(
    make_engine: MakeEngine, path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the file that the URL names, and one directory for a database in memory.

    One        | Other
    asks       |
               | asks
    is told    |
    goes on    |
               | is told
    """
    url = IN_MEMORY if in_memory else f"sqlite+aiosqlite:///{path}"
    engine = make_engine(SQLitePool, url=url)
    both, goes_on, turns = threading.Barrier(2, timeout=5), threading.Event(), iter(range(2))
    ask, inspect = Creator.open_early, Site.inspect

    def ask_together(creator: Creator, **options: Any) -> Any:
        if (turn := next(turns, None)) is not None:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
            if turn:
                goes_on.wait(5)
        return ask(creator, **options)

    def inspect_then(site: Site, timeout: float) -> Any:
        goes_on.set()
        return inspect(site, timeout)

    monkeypatch.setattr(Creator, "open_early", ask_together)
    monkeypatch.setattr(Site, "inspect", inspect_then)
    await asyncio.gather(*(asyncio.to_thread(asyncio.run, write(engine)) for _ in range(2)))
    assert next(turns, None) is None
    pool: Any = engine.pool
    location = pool._connector.location
    assert in_memory or location.path == str(path)
    assert pool.database_file.file == location.file is not None
    assert not await is_empty(engine)
    await engine.dispose()
    assert await is_empty(engine) is in_memory


@pytest.mark.parametrize(
    "moment",
    [
        (Creator, "open_early"),
        (Site, "__init__"),
        (Site, "inspect"),
        (FairPool, "_rules"),
        (Connector, "open"),
        (Connector, "finish"),
    ],
    ids=lambda moment: moment[1],
)
@pytest.mark.parametrize("after", [False, True])
async def test_disposed_of_while_the_first_connection_is_opened(
    make_engine: MakeEngine,
    moment: tuple[type, str],
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By another thread: it opens the next database, and later ones are found by all."""
    owner, name = moment
    method = getattr(owner, name)
    engine = make_engine(SQLitePool, url=IN_MEMORY)

    def dispose() -> None:
        monkeypatch.setattr(owner, name, method)
        thread = threading.Thread(target=asyncio.run, args=(engine.dispose(),))
        thread.start()
        thread.join()

    def call(*args: Any, **options: Any) -> Any:
        if not after:
            dispose()
            return method(*args, **options)
        try:
            return method(*args, **options)
        finally:
            dispose()

    monkeypatch.setattr(owner, name, call)
    for _ in range(2):
        await create_items(engine)
        assert await amounts(engine) == [0, 0, 0]
        directory = directory_of(engine)
        await engine.dispose()
        assert not directory.exists()
    assert caplog.text == ""


async def test_a_pool_that_is_disposed_of_twice(make_engine: MakeEngine) -> None:
    """By threads that have found it at the same moment: the next pool's database stays."""
    engine = make_engine(SQLitePool, url=IN_MEMORY)
    await create_items(engine)
    old = engine.pool
    await engine.dispose()
    await create_items(engine)
    old.dispose()
    assert await amounts(engine) == [0, 0, 0]


def test_any_order_in_threads(make_engine: MakeEngine) -> None:
    """No connection fails, and nothing of it is left.

    SQLAlchemy's engine loses a pool if it is disposed of by two threads at the same moment.
    """
    engine, seeds = make_engine(SQLitePool, url=IN_MEMORY), iter(range(4))
    one_disposes = threading.Lock()
    errors: list[Exception] = []

    async def work() -> None:
        numbers = random.Random(next(seeds))
        for _ in range(10):
            if numbers.random() < 0.3:
                with one_disposes:
                    await engine.dispose()
            else:
                await write(engine)

    def run() -> None:
        try:
            asyncio.run(work())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    asyncio.run(engine.dispose())
    assert engine.pool._connector.left == []  # type: ignore[attr-defined]
