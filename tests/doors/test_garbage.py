"""What operations leave behind is freed at once: no reference cycles, which wait for a collection.

The garbage collector runs seldom, and late in a program with many objects. Until then a cycle keeps
what it refers to: tasks, their contexts, and the variables of all frames of an error.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import types
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Select, bindparam, column, select, table, text
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase, TurnAlreadyHeldError
from sa_sqlite_pool.transactions.locks import write_patience
from tests.helpers import UPDATE_FIRST, create_items

Operation = Callable[[SQLiteDatabase], Coroutine[Any, Any, object]]

ITEM: Select[Any] = (
    select(column("amount")).select_from(table("items")).where(column("id") == bindparam("id"))
)

# SQLAlchemy's expressions and events form cycles of their own, which refer to none of these.
_OURS = ("sa_sqlite_pool", "asyncio", "_asyncio", "_contextvars")
_RUN = (types.FrameType, types.TracebackType, types.CoroutineType, contextvars.Context)


async def _ended(work: Coroutine[Any, Any, object], *, cancelled: bool = False) -> None:
    """Run ``work`` in a task, to its end, which may be an error."""
    task = asyncio.ensure_future(work)
    if cancelled:
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is cancelled
    if not cancelled:
        task.exception()


async def _garbage_of(operation: Operation, db: SQLiteDatabase) -> list[object]:
    """Return what an ``operation`` leaves in reference cycles, once others have filled caches."""
    for _ in range(3):
        await _ended(operation(db))
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await _ended(operation(db))
        await asyncio.sleep(0)  # the loop refers to the task's last step until the lap has ended
        gc.collect()
        found = [o for o in gc.garbage if type(o).__module__.startswith(_OURS)]
        return found + [o for o in gc.garbage if isinstance(o, _RUN)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.fixture
async def filled(db: SQLiteDatabase) -> AsyncIterator[SQLiteDatabase]:
    await create_items(db.writer_engine)
    gc.collect()
    gc.disable()
    yield db
    gc.enable()


async def _engines_read(db: SQLiteDatabase) -> None:
    async with db.reader_engine.connect() as connection:
        (await connection.execute(text("SELECT 1"))).all()
        async with connection.stream(text("SELECT id FROM items")) as rows:
            async for _ in rows:
                break


async def _engines_write(db: SQLiteDatabase) -> None:
    async with db.writer_engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        async with connection.begin_nested():
            await connection.execute(UPDATE_FIRST)


async def _sessions(db: SQLiteDatabase) -> None:
    async with db.read() as session:
        await session.execute(ITEM, {"id": 1})
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
    async with db.sessionmaker() as session:
        await session.execute(ITEM, {"id": 1})
        await session.execute(UPDATE_FIRST)
        await session.commit()


async def _block_that_fails(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        raise KeyError


def _update(session: Session) -> None:
    session.execute(UPDATE_FIRST)


def _fail(session: Session) -> None:
    raise KeyError


async def _functions(db: SQLiteDatabase) -> None:
    await db.run_read(lambda session: session.execute(ITEM, {"id": 1}).all())
    await db.run_write(_update)
    await asyncio.gather(*(db.run_write(_update) for _ in range(5)))


async def _functions_that_fail(db: SQLiteDatabase) -> None:
    for run in (db.run_read, db.run_write):
        await _ended(run(_fail))
        await asyncio.wait([asyncio.ensure_future(_ended(run(_fail))) for _ in range(3)])


async def _prepared(db: SQLiteDatabase) -> None:
    read = db.prepare(ITEM)
    await asyncio.gather(*(read.one(id=1) for _ in range(50)))
    with suppress(NoResultFound):
        await read.one(id=-1)


async def _cancelled_in_line(db: SQLiteDatabase) -> None:
    async def write() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)

    async with db.write() as holder:
        await holder.execute(UPDATE_FIRST)
        await _ended(write(), cancelled=True)
        await _ended(db.run_write(_update), cancelled=True)


async def _too_late(db: SQLiteDatabase) -> None:
    async def write() -> None:
        write_patience.set(0.0)
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)

    async with db.write() as holder:
        await holder.execute(UPDATE_FIRST)
        await _ended(write())


async def _refused_at_once(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        with pytest.raises(TurnAlreadyHeldError):
            async with db.write() as other:
                await other.execute(UPDATE_FIRST)


OPERATIONS: list[Operation] = [
    _engines_read,
    _engines_write,
    _sessions,
    _block_that_fails,
    _functions,
    _functions_that_fail,
    _prepared,
    _cancelled_in_line,
    _too_late,
    _refused_at_once,
]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nothing_is_left(filled: SQLiteDatabase, operation: Operation) -> None:
    assert await _garbage_of(operation, filled) == []
