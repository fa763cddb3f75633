"""The facade's engines and routed sessions are SQLAlchemy's, with less overhead per call."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext import asyncio as theirs
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.ext.asyncio.exc import AsyncContextNotStarted

from sa_sqlite_pool import (
    ReaderPool,
    RoutedAsyncSession,
    SQLiteDatabase,
    WriterPool,
    routing_sessionmaker,
)
from sa_sqlite_pool.compat.greenlets import greenlet_spawn
from sa_sqlite_pool.compat.sqlalchemy_asyncio import in_greenlets_used_again
from sa_sqlite_pool.sessions import lean
from tests.conftest import MakeEngine, Tasks
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items

CLASSES = [
    lean.LeanEngine,
    lean.LeanConnection,
    lean.LeanTransaction,
    lean.LeanSession,
    lean.LeanSessionTransaction,
    lean.LeanResult,
    lean.LeanScalarResult,
    lean.LeanMappingResult,
]
HOT = {
    lean.LeanConnection: {"start", "execute", "exec_driver_sql", "commit", "rollback", "close"},
    lean.LeanTransaction: {"start", "commit", "rollback", "__aexit__"},
    lean.LeanSession: {"execute", "scalar", "get", "flush", "commit", "rollback", "close"},
    lean.LeanSessionTransaction: {"start", "commit", "rollback", "__aexit__"},
    lean.LeanResult: {"__anext__", "fetchmany", "all", "one"},
    lean.LeanScalarResult: {"__anext__", "fetchmany", "all", "one"},
    lean.LeanMappingResult: {"__anext__", "fetchmany", "all", "one"},
}


def spawning(cls: type) -> dict[str, FunctionType]:
    """Return SQLAlchemy's methods that spawn a greenlet."""
    return {
        name: method
        for name, method in vars(cls.__bases__[-1]).items()
        if isinstance(method, FunctionType) and "greenlet_spawn" in method.__code__.co_names
    }


def calls_ours(method: FunctionType) -> bool:
    names = method.__code__.co_names
    return greenlet_spawn in (method.__globals__.get(name) for name in names)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_can_be_pickled(cls: type) -> None:
    """It is pickled by name like SQLAlchemy's: a function is sent to a worker with annotations."""
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert cls.__name__ in vars(theirs)  # in messages


@pytest.mark.parametrize("cls", CLASSES)
def test_all_that_spawn_use_greenlets_again(cls: type) -> None:
    """In everything else, they are SQLAlchemy's own."""
    theirs = spawning(cls)
    assert set(theirs) >= HOT.get(cls, set())
    for name, method in theirs.items():
        ours = vars(cls)[name]
        assert set(inspect.signature(ours).parameters) == set(inspect.signature(method).parameters)
        if ours.__module__ == lean.__name__:  # connection() of a session
            continue
        assert calls_ours(ours)
        assert not calls_ours(method)
        assert ours.__code__.co_code == method.__code__.co_code
        assert ours.__globals__ is method.__globals__
        assert inspect.signature(ours) == inspect.signature(method)
        assert ours.__doc__ == method.__doc__


async def test_blocks_that_need_not_wait_end_at_once(path: Path, tasks: Tasks) -> None:
    """The next task in line gets the connection without a lap of the loop in between."""
    async with SQLiteDatabase(path, placement="inline") as db:
        await create_items(db.writer_engine)
        tasks.clear()
        async with db.reader_engine.connect() as connection:
            await connection.execute(text("SELECT count(*) FROM items"))
        async with db.read() as session:
            await session.execute(text("SELECT count(*) FROM items"))
        async with db.writer_engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
        assert tasks == []
        assert (await amounts(db.reader_engine))[0] == 2


@pytest.mark.needs_thread
async def test_a_block_that_waits_is_run_to_its_end(db: SQLiteDatabase, tasks: Tasks) -> None:
    """It is rolled back in the connection's thread, by a task that no cancellation reaches."""
    await create_items(db.writer_engine)
    tasks.clear()
    async with db.writer_engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)  # not known to be short, nor is its end
    assert len(tasks) == 1
    assert (await amounts(db.reader_engine))[0] == 0


@pytest.mark.needs_thread
async def test_a_session_that_waits_is_closed_to_its_end(
    make_engine: MakeEngine, tasks: Tasks
) -> None:
    """The same applies as to a connection."""
    writer = make_engine(WriterPool)
    await create_items(writer)
    make = routing_sessionmaker(writer=writer, reader=make_engine(ReaderPool))
    tasks.clear()
    async with make() as session:
        await session.execute(UPDATE_FIRST)  # not known to be short, nor is its end
    assert len(tasks) == 1
    assert (await amounts(writer))[0] == 0


def test_what_a_class_has_of_its_own_stays() -> None:
    class Own(AsyncConnection):
        __slots__ = ()

        async def commit(self) -> None:
            """A method that is not SQLAlchemy's."""

    own = Own.commit
    in_greenlets_used_again(Own)
    assert Own.commit is own
    assert Own.rollback is not AsyncConnection.rollback


async def test_what_begins_is_lean(db: SQLiteDatabase) -> None:
    """This includes transactions and savepoints, of connections and sessions."""
    async with db.reader_engine.connect() as connection:
        assert type(connection.begin()) is lean.LeanTransaction
        assert type(connection.begin_nested()) is lean.LeanTransaction
    async with db.read() as session:
        assert type(session.begin()) is lean.LeanSessionTransaction
        assert type(session.begin_nested()) is lean.LeanSessionTransaction


async def test_nothing_begins_before_the_connection(db: SQLiteDatabase) -> None:
    """An error is raised at once."""
    connection = db.reader_engine.connect()
    for begin in (connection.begin, connection.begin_nested):
        with pytest.raises(AsyncContextNotStarted):
            begin()


async def test_options_keep_the_engine_lean(db: SQLiteDatabase) -> None:
    engine = db.reader_engine.execution_options(statement_timeout=1.0)
    assert isinstance(engine, lean.LeanEngine)
    async with engine.connect() as connection:
        assert isinstance(connection, lean.LeanConnection)
        assert isinstance(connection, AsyncConnection)
        options = await connection.run_sync(lambda sync: sync.get_execution_options())
        assert options["statement_timeout"] == 1.0


async def test_savepoints(db: SQLiteDatabase) -> None:
    """They work for connections and sessions."""
    await create_items(db.writer_engine, 2)
    async with db.writer_engine.begin() as connection:
        async with connection.begin_nested():
            await connection.execute(UPDATE_FIRST)
        async with connection.begin_nested() as savepoint:
            await connection.execute(UPDATE_FIRST)
            await savepoint.rollback()
    async with db.write() as session:
        async with session.begin_nested():
            await session.execute(UPDATE_FIRST)
        async with session.begin_nested() as nested:
            await session.execute(UPDATE_FIRST)
            await nested.rollback()
    assert (await amounts(db.reader_engine))[0] == 2


async def test_results_and_streams(db: SQLiteDatabase) -> None:
    """They act as elsewhere in SQLAlchemy."""
    await create_items(db.writer_engine, 3)
    async with db.reader_engine.connect() as connection:
        assert await connection.scalar(select(func.count(Item.id))) == 3
        assert [row async for row in await connection.stream(select(Item.id))] == [(1,), (2,), (3,)]
        assert await connection.run_sync(lambda sync: sync.scalar(select(func.max(Item.id)))) == 3
    async with db.read() as session:
        assert [item.id async for item in await session.stream_scalars(select(Item))] == [1, 2, 3]
        assert (await session.get_one(Item, 2)).id == 2


async def test_a_session_of_the_application_closes_in_a_task_of_its_own(
    make_engine: MakeEngine, path: Path
) -> None:
    """As in SQLAlchemy, code awaited there may inspect its task, or limit its time."""
    closing: list[asyncio.Task[Any] | None] = []

    class Session(RoutedAsyncSession):
        async def close(self) -> None:
            closing.append(asyncio.current_task())
            await super().close()

    make = routing_sessionmaker(
        writer=make_engine(WriterPool), reader=make_engine(ReaderPool), class_=Session
    )
    async with make() as session:
        assert isinstance(session, AsyncSession)
        await session.execute(text("SELECT 1"))
    assert len(closing) == 1
    assert closing[0] is not asyncio.current_task()
