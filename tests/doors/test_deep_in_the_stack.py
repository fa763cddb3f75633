"""A task at the end of its stack gets a RecursionError, and leaves nothing behind.

Each depth exhausts the stack at another point in the package, for example where a permit was
just granted or a timer is about to start. Anything left behind there would block all others. And
anything that starts there and is reused must not stay at the end of its stack for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import sa_sqlite_pool
from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool.compat.greenlets import Spawned
from tests.helpers import UPDATE_FIRST, create_items, end_idle, room_in_the_stack, uses_of

Use = Callable[[], Awaitable[object]]

# The frames left to the tests, and the most that the tested calls need.
_ROOM, _DEEPEST = 200, 100
_ONE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1.0, "write_timeout": 1.0}
_COUNT = text("SELECT count(*) FROM items")
# Objects that the interpreter leaves half finished at such a depth are reported when freed.
pytestmark = pytest.mark.filterwarnings("ignore")

DOORS = {"swap-in": create_async_engine, "drop-in": sa_sqlite_pool.create_async_engine}


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield a low limit on the number of frames, which makes it quick to try each depth."""
    # pytest's own hook fails at the end of the stack, and the test fails with it.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before, depth = sys.getrecursionlimit(), 0
    while True:
        try:
            sys._getframe(depth)
        except ValueError:
            break
        depth += 1
    yield depth + _ROOM
    sys.setrecursionlimit(before)


async def _deep(frames: int, use: Use) -> object:
    return await (_deep(frames - 1, use) if frames else use())


async def at_each_depth(limit: int, use: Use, then: Use) -> None:
    """Call ``use()`` at ever greater stack depth, and ``then()`` at ground level each time."""
    before, failures, called = sys.getrecursionlimit(), 0, True

    async def use_it() -> None:
        nonlocal called
        called = True
        await use()

    frames = _ROOM - _DEEPEST
    while called:
        called = False
        sys.setrecursionlimit(limit)
        try:
            await asyncio.wait_for(_deep(frames, use_it), 5)
        except (RecursionError, exc.DatabaseError):  # in a callback of SQLite: "not authorized"
            failures += 1
        finally:
            sys.setrecursionlimit(before)
        gc.collect()  # close() may have had no room and left its connection to this, as on stock
        await asyncio.wait_for(then(), 5)
        frames += 1
    assert failures
    gc.collect()  # within the test, whose warnings are not shown


def write_by(engine: AsyncEngine) -> Use:
    async def write_once() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)

    return write_once


@pytest.mark.parametrize("door", DOORS)
async def test_engines(path: Path, limit: int, door: str) -> None:
    """Neither the single connection nor the turn is lost."""
    engine = DOORS[door](f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, **_ONE)
    await create_items(engine)

    async def read_once() -> None:
        async with engine.connect() as connection:
            await connection.execute(_COUNT)

    await at_each_depth(limit, write_by(engine), write_by(engine))
    await at_each_depth(limit, read_once, write_by(engine))
    await engine.dispose()


@pytest.mark.parametrize("door", DOORS)
async def test_the_first_connection(path: Path, limit: int, door: str) -> None:
    """Facts that an engine's first task fails to determine are determined by the next one."""
    engine = None

    async def first() -> None:
        nonlocal engine
        engine = DOORS[door](f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, **_ONE)
        await asyncio.sleep(0)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def then() -> None:
        if engine is not None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            await engine.dispose()

    await at_each_depth(limit, first, then)


@pytest.mark.parametrize("use", ["write", "read", "run_write", "run_read"])
async def test_the_facade(path: Path, limit: int, use: str) -> None:
    """Closures work afterwards, too, although a separate task borrows their readers."""
    async with SQLiteDatabase(path, readers=1, write_timeout=1.0, read_timeout=1.0) as db:
        await create_items(db.writer_engine)
        uses = uses_of(db)

        async def each() -> None:
            for one in uses.values():
                await one()

        await each()
        await at_each_depth(limit, uses[use], each)


async def rooms(engine: AsyncEngine) -> list[int]:
    """Return the stack room left to the application's functions: a called one, and a listener."""
    heard: list[int] = []

    def listen(*_: object) -> None:
        heard.append(room_in_the_stack())

    async with engine.connect() as connection:
        await connection.run_sync(
            room_in_the_stack
        )  # for everything that a first call imports or caches
        event.listen(engine.sync_engine, "before_cursor_execute", listen)
        await connection.execute(text("SELECT 1"))
        event.remove(engine.sync_engine, "before_cursor_execute", listen)
        return [await connection.run_sync(room_in_the_stack), *heard]


@pytest.mark.parametrize("door", [*DOORS, "reader", "writer"])
async def test_room_afterwards(path: Path, door: str) -> None:
    """One call from deep in the stack does not leave less room to later calls."""
    async with contextlib.AsyncExitStack() as stack:
        if door in DOORS:
            engine = DOORS[door](f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
            stack.push_async_callback(engine.dispose)
        else:
            db = await stack.enter_async_context(SQLiteDatabase(path))
            engine = db.reader_engine if door == "reader" else db.writer_engine
        end_idle(Spawned)
        before = await rooms(engine)
        end_idle(Spawned)
        deep: Any = await _deep(sys.getrecursionlimit() // 2, lambda: rooms(engine))
        assert max(deep) < sys.getrecursionlimit() // 2
        # Give or take some frames, for what the loop calls when it resumes the task.
        assert min(await rooms(engine)) > min(before) - 20
