"""Helpers that several tests need."""

from __future__ import annotations

import asyncio
import gc
import selectors
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.compat.runners import Runner
from sa_sqlite_pool.database_file import database_file
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.system.clock import time
from sa_sqlite_pool.turn.write_turn import WriteTurn

# Options of engines whose pool has one connection.
ONE_CONNECTION: dict[str, dict[str, Any]] = {
    "swap-in": {"poolclass": SQLitePool, "pool_size": 1, "max_overflow": 0},
    "reader": {"poolclass": ReaderPool, "pool_size": 1},
    "writer": {"poolclass": WriterPool},
}

T = TypeVar("T")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int] = mapped_column(default=0, index=True)


ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
)
UPDATE_FIRST = text("UPDATE items SET amount = amount + 1 WHERE id = 1")


def turn_of(path: Path) -> WriteTurn:
    return database_file(Location(str(path))).turn


def end_idle(cls: type[Runner]) -> None:
    """End this thread's idle greenlets here, and not in a collection of garbage later."""
    while cls.idle.runners:
        cls.idle.runners.pop().end()


async def create_items(engine: AsyncEngine, count: int = 3) -> None:
    """Create the table ``items`` with the ids 1 … count, and all amounts 0."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if count:
            await connection.execute(
                text("INSERT INTO items (id, amount) VALUES (:id, 0)"),
                [{"id": number + 1} for number in range(count)],
            )


async def amounts(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        result = await connection.execute(text("SELECT amount FROM items ORDER BY id"))
        return [row.amount for row in result]


async def driver(connection: AsyncConnection) -> SQLiteConnection:
    """Return the package's connection beneath SQLAlchemy's."""
    raw = (await connection.get_raw_connection()).dbapi_connection
    assert isinstance(raw, SQLiteConnection)
    return raw


async def write(db: SQLiteDatabase) -> None:
    """Write one row, through a facade."""
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


async def read(db: SQLiteDatabase) -> None:
    """Read, through a facade."""
    async with db.read() as session:
        await session.execute(text("SELECT 1"))


async def until_waiting(count: int, line: Any) -> None:
    """Let other tasks run until ``count`` of them wait in ``line``."""
    give_up = time.monotonic() + 30
    while line.waiting != count:
        assert time.monotonic() < give_up, f"{line.waiting} tasks wait, not {count}"
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until ``condition()`` holds."""
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "it never came to hold"
        await asyncio.sleep(0)


async def until_free(path: Path) -> None:
    """Wait until the write turn is free; after a cancellation, a thread has to roll back first."""
    await until(lambda: turn_of(path).holder is None)


async def cancelled_after(work: Coroutine[Any, Any, object], steps: int, times: int) -> bool:
    """Cancel a task after ``steps`` laps, ``times`` times; return whether it was cancelled."""
    task = asyncio.create_task(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


class SleepingFunction:
    """``sleep()`` for SQL: SQLite cannot interrupt it. It blocks until ``leave`` is set."""

    def __init__(self) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()

    def on_connect(self, connection: sqlite3.Connection) -> None:
        connection.create_function("sleep", 0, self._sleep)

    def _sleep(self) -> int:
        self.inside.set()
        self.leave.wait(30)
        return 1


def files_beside(path: Path) -> set[str]:
    """Return all files there except lock files, which stay, and sockets, which appear late."""
    names = {entry.name for entry in path.parent.iterdir() if not entry.is_socket()}
    return {name for name in names if not name.endswith(("-turn", "-line"))}


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
            timeout = 0
        return super().select(timeout)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


async def time_passes(seconds: float) -> None:
    """Let the clock jump ahead as soon as all tasks are idle. This takes no real time."""
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    await asyncio.sleep(seconds)


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on a :class:`VirtualTimeLoop`."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def let_others_in(tmp_path: Path) -> None:
    """Let another user read the files in a test's directory.

    Of its parent directories, only pytest's own are changed: all programs may write in
    ``/dev/shm``, where these are.
    """
    own = [place for place in tmp_path.parents if "/pytest-of-" in f"{place}/"]
    for directory in (tmp_path, *own):
        directory.chmod(0o755)


async def end_beside_a_lost_stream(
    begin: Callable[[], AbstractAsyncContextManager[AsyncSession]],
    statement: Executable,
    end: Callable[[], Coroutine[Any, Any, object]],
) -> None:
    """Await ``end()`` for at most ten seconds, with a stream that its task has left in a cycle.

    Frameworks leave the body of a response like this when the client has disconnected. Automatic
    garbage collection is off meanwhile.
    """

    async def stream() -> AsyncIterator[Any]:
        async with begin() as session:
            async for row in await session.stream(statement):
                yield row

    async def request() -> None:
        response: list[Any] = [stream()]
        response.append(response)
        await anext(response[0])

    gc.collect()
    gc.disable()
    try:
        await asyncio.create_task(request())
        await asyncio.wait_for(end(), 10)
    finally:
        gc.enable()


def uses_of(db: SQLiteDatabase) -> dict[str, Callable[[], Coroutine[Any, Any, object]]]:
    """Return the ways to use the table ``items`` once, by name."""
    count = text("SELECT count(*) FROM items")
    return {
        "write": lambda: write(db),
        "read": lambda: read(db),
        "run_write": lambda: db.run_write_core(lambda c: c.execute(UPDATE_FIRST).close()),
        "run_read": lambda: db.run_read_core(lambda c: c.execute(count).scalar()),
    }


def room_in_the_stack(*_: object) -> int:
    """Return the number of nested calls for which the stack has room."""
    calls: list[None] = []

    # If each call caught the error, Python 3.13.0 was observed not to find the end of the stack.
    def call() -> None:
        calls.append(None)
        call()

    with suppress(RecursionError):
        call()
    return len(calls)
