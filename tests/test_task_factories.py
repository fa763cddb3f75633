"""A program works correctly whichever factory creates its tasks, and whichever loop runs them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as sqlalchemy_asyncio
from sqlalchemy import Connection, event, func, insert, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool

import sa_sqlite_pool
from sa_sqlite_pool import (
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WalSettings,
    WriterPool,
    routing_sessionmaker,
)
from tests.cancelling import cancelled, some_laps
from tests.helpers import ENDLESS, Item, create_items, turn_of, until, until_free, until_waiting

Work = Coroutine[Any, Any, Any]


# -- loops, and their task factories --------------------------------------------------------------


def debug() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60.0
    return loop


def eager() -> asyncio.AbstractEventLoop:
    if sys.version_info < (3, 12):
        pytest.skip("Python 3.12 has eager tasks")
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


def uvloop_debug() -> asyncio.AbstractEventLoop:
    loop = uvloop()
    loop.set_debug(True)
    return loop


class OwnTask(asyncio.Task[Any]):
    """A task of the application's class."""


def own_tasks() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(lambda loop, work, **kw: OwnTask(work, loop=loop, **kw))
    return loop


class Wrapped(asyncio.Future[Any]):
    """A future that represents a task, as returned by some factories."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work) -> None:
        super().__init__(loop=loop)
        self._task = asyncio.Task(work, loop=loop)
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            super().cancel()
        elif error := task.exception():
            self.set_exception(error)
        else:
            self.set_result(task.result())

    def cancel(self, msg: object = None) -> bool:
        return self._task.cancel()

    def set_name(self, name: object) -> None:
        """Do nothing; ``loop.create_task()`` of Python 3.13 requires it."""
        self._task.set_name(name)


def wrapped() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(Wrapped)  # type: ignore[arg-type]
    return loop


LOOPS = [asyncio.new_event_loop, debug, eager, uvloop, uvloop_debug, own_tasks, wrapped]


@pytest.fixture(params=LOOPS, ids=lambda make: str(make.__name__))
def run(request: pytest.FixtureRequest) -> Callable[[Work], Any]:
    """Provide ``run(coroutine)``, which completes within half a minute, in a loop of that kind."""

    loop: asyncio.AbstractEventLoop = request.param()

    def run(work: Work) -> Any:
        try:
            return loop.run_until_complete(asyncio.Task(asyncio.wait_for(work, 30), loop=loop))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return run


# -- programs -------------------------------------------------------------------------------------


async def use_engine(engine: AsyncEngine) -> None:
    """Run sequential and concurrent writes, reads, streams, and a cancelled statement."""

    async def bump() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE items SET amount = amount + 1"))

    async def for_ever() -> None:
        async with engine.connect() as connection:
            await connection.execute(ENDLESS)

    await asyncio.gather(*(bump() for _ in range(8)))
    await cancelled(for_ever())
    await bump()
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT amount FROM items WHERE id = 1")) == 9
        stream = await connection.stream(text("SELECT id FROM items ORDER BY id"))
        assert [row.id async for row in stream] == [1, 2, 3]


async def use_sessions(make: async_sessionmaker[AsyncSession]) -> None:
    """Use a session that reads and writes, and one that is abandoned in the middle."""

    async def add(key: int) -> None:
        async with make() as session, session.begin():
            assert await session.get(Item, key) is None
            session.add(Item(id=key))

    async def left() -> None:
        async with make() as session, session.begin():
            session.add(Item(id=99))
            await session.flush()
            await asyncio.Event().wait()

    await asyncio.gather(*(add(key) for key in range(10, 14)))
    await cancelled(left())
    async with make() as session:
        assert await session.scalar(select(func.count()).select_from(Item)) == 7


def test_the_pool_of_the_first_door(path: Path, run: Callable[[Work], Any]) -> None:
    async def program() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
        await create_items(engine)
        await use_engine(engine)
        await use_sessions(async_sessionmaker(engine))
        await engine.dispose()

    run(program())


def test_the_two_engines_of_the_second(path: Path, run: Callable[[Work], Any]) -> None:
    async def program() -> None:
        url = f"sqlite+aiosqlite:///{path}"
        writer = create_async_engine(url, poolclass=WriterPool)
        reader = create_async_engine(url, poolclass=ReaderPool)
        await create_items(writer)
        await use_engine(writer)
        await use_sessions(routing_sessionmaker(writer=writer, reader=reader))
        await reader.dispose()
        await writer.dispose()

    run(program())


def add(session: Session, key: int) -> int:
    session.add(Item(id=key))
    return key


def fail(connection: Connection) -> None:
    connection.execute(insert(Item).values(id=50))
    raise ZeroDivisionError


async def use_functions(db: SQLiteDatabase) -> None:
    """Run functions alone and in groups: failing, cancelled, and in line behind a session."""
    assert await db.run_write(add, 20) == 20
    keys = [*range(21, 30)]
    assert await asyncio.gather(*(db.run_write(add, key) for key in keys)) == keys
    with pytest.raises(ZeroDivisionError):
        await db.run_write_core(fail)
    await cancelled(db.run_write_core(Connection.execute, ENDLESS))
    await cancelled(db.run_read_core(Connection.execute, ENDLESS))
    async with db.write() as session:
        session.add(Item(id=30))
        await session.flush()
        waiting = [asyncio.ensure_future(db.run_write(add, key)) for key in (31, 32)]
        await cancelled(db.run_write(add, 33))
    assert await asyncio.gather(*waiting) == [31, 32]
    ids = await db.run_read(lambda session: session.scalars(select(Item.id)).all())
    assert [key for key in ids if key >= 20] == [*range(20, 33)]


async def outgrow(db: SQLiteDatabase) -> None:
    """Outgrow the log's limits: a separate task keeps the log small."""
    async with db.write() as session:
        await session.execute(text("CREATE TABLE blobs (data BLOB)"))
        await session.execute(text("INSERT INTO blobs VALUES (zeroblob(500000))"))
    assert (wal := db.statistics().wal) is not None
    assert wal.size > 2**16
    await until(lambda: (wal := db.statistics().wal) is not None and wal.size < 2**16)


def test_the_facade(path: Path, run: Callable[[Work], Any]) -> None:
    async def program() -> None:
        db = SQLiteDatabase(path, wal=WalSettings(soft_limit=2**16, hard_limit=2**20))
        async with db:
            await create_items(db.writer_engine)
            await use_engine(db.writer_engine)
            await use_sessions(db.sessionmaker)
            await use_functions(db)
            await outgrow(db)
            assert (await db.checkpoint("truncate")).outcome.value == "truncated"
            await db.backup(path.with_name("copy.db"))
        assert path.with_name("copy.db").exists()

    run(program())


def test_the_turn_is_the_groups(path: Path, run: Callable[[Work], Any]) -> None:
    """It holds the turn as soon as it is passed to it: a caller that is cancelled and asks again
    must not be mistaken for the holder."""

    async def program() -> None:
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine)
            turn = turn_of(path)
            for laps in range(3):
                permit = turn.acquire_nowait()
                assert permit is not None
                waiting = asyncio.ensure_future(db.run_write(add, 40 + laps))
                await until_waiting(1, turn)
                for _ in range(laps):
                    await asyncio.sleep(0)
                turn.release(permit)
                holder = turn.holder
                assert holder is not None
                named = holder.task is not None and holder.task.get_name()
                assert named == "group commit of app.db" or (holder.task is None and laps == 0)
                await waiting
                await until_free(path)

    run(program())


def test_closed_while_it_is_used(path: Path, run: Callable[[Work], Any]) -> None:
    """close() ends in time, for any number of waiting tasks, even after a cancellation."""

    async def program() -> None:
        db = await SQLiteDatabase(path, close_timeout=0.1).open()
        running = [
            asyncio.ensure_future(db.run_read_core(Connection.execute, ENDLESS)),
            asyncio.ensure_future(db.run_write_core(Connection.execute, ENDLESS)),
        ]
        await some_laps()
        await cancelled(db.close())
        await asyncio.gather(db.close(), db.close())
        ended = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(error, Exception) for error in ended)

    run(program())


def test_a_task_that_a_listener_starts(path: Path, run: Callable[[Work], Any]) -> None:
    """An eager task takes its first step in SQLAlchemy's greenlet, and continues outside it."""

    async def program() -> None:
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine)
            others: list[asyncio.Future[Any]] = []

            async def other() -> None:
                async with db.read() as session:
                    await session.execute(text("SELECT amount FROM items"))
                await db.run_write(add, 10)
                async with db.reader_engine.connect() as connection:
                    await connection.execute(text("SELECT amount FROM items"))

            @event.listens_for(db.writer_engine.sync_engine, "before_cursor_execute")
            def start(*_: Any) -> None:
                if not others:
                    others.append(asyncio.ensure_future(other()))

            async with db.write() as session:
                await session.execute(text("UPDATE items SET amount = 1"))
                await session.execute(text("UPDATE items SET amount = 2"))
            await others[0]
            assert await db.run_read(lambda session: session.get_one(Item, 10).amount) == 0

    run(program())


# -- SQLAlchemy's names ----------------------------------------------------------------------------


@pytest.fixture(params=["imported", "installed"])
def names(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Provide this package's names, or SQLAlchemy's as modified by ``install()``."""
    if request.param == "imported":
        yield sa_sqlite_pool
    else:
        sa_sqlite_pool.install()
        yield sqlalchemy_asyncio
        sa_sqlite_pool.uninstall()


def test_engines_that_reuse_greenlets(path: Path, run: Callable[[Work], Any], names: Any) -> None:
    """They are created by imports or ``install()``, on this package's pool and on SQLAlchemy's."""

    async def program() -> None:
        url = f"sqlite+aiosqlite:///{path}"
        for pool in (SQLitePool, AsyncAdaptedQueuePool):
            engine = names.create_async_engine(url, poolclass=pool)
            maker = names.async_sessionmaker(engine)
            if pool is SQLitePool:
                await create_items(engine)
                await use_engine(engine)
            await (use_sessions if pool is SQLitePool else use_sessions_alone)(maker)
            await engine.dispose()

    run(program())


async def use_sessions_alone(make: async_sessionmaker[AsyncSession]) -> None:
    """Use one session after the other, on the stock driver."""
    for key in range(40, 43):
        async with make.begin() as session:
            session.add(Item(id=key))
    async with make() as session:
        result = await session.stream(select(Item.id).where(Item.id >= 40).order_by(Item.id))
        assert await result.scalars().all() == [40, 41, 42]


def test_a_task_that_a_listener_of_theirs_starts(
    path: Path, run: Callable[[Work], Any], names: Any
) -> None:
    """An eager task takes its first step in a reused greenlet, and requests more of them."""

    async def program() -> None:
        engine = names.create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
        await create_items(engine)
        make = names.async_sessionmaker(engine)
        others: list[asyncio.Future[Any]] = []

        async def other() -> int:
            async with make() as session:
                found = await session.scalar(select(func.count()).select_from(Item))
            async with engine.connect() as connection:
                rows = await connection.stream(select(Item.id))
                return int(found) + len([row async for row in rows])

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def start(*_: Any) -> None:
            if len(others) < 2:
                others.append(asyncio.ensure_future(other()))

        async with make.begin() as session:
            await session.execute(text("UPDATE items SET amount = 1"))
            await session.execute(text("UPDATE items SET amount = 2"))
        assert await asyncio.gather(*others) == [6, 6]
        await engine.dispose()

    run(program())
