"""Connections that the garbage collector returns in one thread, while others use the engine."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from sa_sqlite_pool import SQLitePool, WriterPool
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import (
    ONE_CONNECTION,
    UPDATE_FIRST,
    amounts,
    create_items,
    turn_of,
    until,
    until_free,
)
from tests.turn.semaphores import HeldMutex


@pytest.fixture(autouse=True)
def collected_when_asked() -> Iterator[None]:
    """Let the garbage collector run only when a test calls it; its warnings are no errors here.

    Nor are they logged, because pytest's record of an error would keep the connection.
    """
    gc.collect()
    gc.freeze()  # so that a collection takes no time
    gc.disable()
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)
    gc.enable()
    gc.unfreeze()


def pool_of(engine: AsyncEngine) -> FairPool:
    assert isinstance(engine.pool, FairPool)
    return engine.pool


class Finalizer:
    """SQLAlchemy's clean-up of a connection that was never closed, in a separate thread.

    It stops at :meth:`stop_here` until it may continue.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.stopped, self._goes_on = threading.Event(), threading.Event()
        self._engine = engine
        self._thread = threading.Thread(target=self._run)

    def stop_here(self, *_: object) -> None:
        self.stopped.set()
        assert self._goes_on.wait(30)

    def _run(self) -> None:
        asyncio.run(self._leak())
        gc.collect()

    async def _leak(self) -> None:
        connection = await self._engine.connect()
        await connection.execute(text("SELECT 1 FROM items"))

    async def until_stopped(self) -> None:
        self._thread.start()
        await until(self.stopped.is_set)

    async def ends(self) -> None:
        self._goes_on.set()
        await asyncio.to_thread(self._thread.join)


async def record_of(connection: Any) -> ConnectionPoolEntry:
    record = (await connection.get_raw_connection())._connection_record
    assert isinstance(record, ConnectionPoolEntry)
    return record


@pytest.mark.parametrize("door", ONE_CONNECTION)
async def test_a_returned_record_is_lent_once(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    """Steps of the finalizer after the return do not affect a task that has checked it out.

    Finalizer, in a thread        | Task
    returns the record, closes    |
    (warns)                       | checks out, updates
    looks whether it is in use    |
                                  | still has it exclusively; commits
    """
    await create_items(make_engine(WriterPool))
    engine = make_engine(**ONE_CONNECTION[door])
    finalizer = Finalizer(engine)
    monkeypatch.setattr(sqlalchemy.util, "warn", finalizer.stop_here)
    await finalizer.until_stopped()
    async with engine.connect() as connection:
        record = await record_of(connection)
        if door != "reader":
            await connection.execute(UPDATE_FIRST)
        await finalizer.ends()
        assert record.in_use
        assert len(pool_of(engine).checkouts) == 1
        assert pool_of(engine).checkedin() == 0
        await connection.commit()
    assert pool_of(engine).checkedin() == 1
    assert await amounts(engine) == [0 if door == "reader" else 1, 0, 0]


async def test_an_error_of_the_finalizer_harms_nobody_else(
    path: Path, make_engine: MakeEngine
) -> None:
    """The error invalidates the returned record, not the connection of its next user."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=1)
    await create_items(engine)
    finalizer = Finalizer(engine)

    @event.listens_for(engine.sync_engine, "close_detached")
    def fail(_: object) -> None:
        finalizer.stop_here()
        raise RuntimeError

    await finalizer.until_stopped()
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await finalizer.ends()
        assert (await record_of(connection)).dbapi_connection is not None
        await connection.commit()
    gc.collect()  # the connection whose closing failed
    await until(lambda: not len(pool_of(engine).checkouts))
    await until_free(path)
    assert await amounts(engine) == [1, 0, 0]


async def test_a_record_returned_twice_is_at_rest_once(swap_in: AsyncEngine) -> None:
    """Two threads may return the same record, for example when the loop of one has died."""
    async with swap_in.connect() as connection:
        record = await record_of(connection)
    pool = pool_of(swap_in)
    assert pool.checkedin() == 1
    pool._do_return_conn(record)
    assert pool.checkedin() == 1


async def test_in_the_middle_of_a_step_of_the_turn(swap_in: AsyncEngine, path: Path) -> None:
    """This includes a disposed pool, whose last connection closes the files of the turn."""
    lost = [await swap_in.connect()]
    await lost[0].execute(text("SELECT 1"))
    await swap_in.dispose()
    lost.append(lost)  # type: ignore[arg-type]
    del lost
    line, held = turn_of(path).line, HeldMutex()
    mutex, line._mutex = line._mutex, held  # type: ignore[assignment]
    gc.collect()
    line._mutex = mutex
    assert not held.waited
    await until_free(path)


async def test_what_is_known_of_a_record_stays(swap_in: AsyncEngine) -> None:
    """``record_info`` persists across invalidation, ``info`` does not, as in SQLAlchemy's pools."""
    async with swap_in.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.record_info is not None
        raw.record_info["slot"] = raw.info["connection"] = 7
        await connection.invalidate()
    async with swap_in.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.record_info == {"slot": 7}
        assert raw.info == {}


# -- several loops in several threads ------------------------------------------------------------

LEAKS, WRITES, WRITERS = 30, 30, 2

_collecting = threading.Lock()  # gc.collect() has no effect while another thread collects


async def leak(engine: AsyncEngine) -> None:
    for _ in range(LEAKS):
        connection = await engine.connect()
        await connection.execute(text("SELECT 1 FROM items"))
        del connection
        with _collecting:
            gc.collect()
        await asyncio.sleep(0)


async def write(engine: AsyncEngine) -> None:
    for _ in range(WRITES):
        async with engine.execution_options(sqlite_role="writer").begin() as connection:
            amount = await connection.scalar(text("SELECT amount FROM items WHERE id = 1"))
            await asyncio.sleep(0)
            await connection.execute(
                text("UPDATE items SET amount = :new WHERE id = 1"), {"new": amount + 1}
            )


def in_loops_of_their_own(*works: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "two threads are inside one connection"
    assert errors == []


@pytest.mark.parametrize("door", ["swap-in", "writer"])
def test_leaks_in_one_thread_and_commits_in_others(path: Path, door: str) -> None:
    """Every acknowledged commit is present."""
    options = ONE_CONNECTION[door] | ({"max_overflow": 1} if door == "swap-in" else {})
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    asyncio.run(create_items(engine))
    in_loops_of_their_own(
        lambda: leak(engine), lambda: leak(engine), *[lambda: write(engine)] * WRITERS
    )
    asyncio.run(engine.dispose())
    with closing(sqlite3.connect(path)) as connection:
        (amount,) = connection.execute("SELECT amount FROM items WHERE id = 1").fetchone()
    assert amount == WRITES * WRITERS
