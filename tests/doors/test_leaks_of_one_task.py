"""A task that loses a session after a write, and writes again, like a loop that handles errors."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from sa_sqlite_pool import SQLiteDatabase, TurnAlreadyHeldError
from tests.conftest import MakeEngine
from tests.doors.test_leaks import DOORS
from tests.helpers import UPDATE_FIRST, amounts, create_items

# On a writer, a checkout acquires the turn; on a swap-in connection, the first write does.
ENGINES = ["facade", "swap-in", "writer"]


def _engine(db: SQLiteDatabase, make_engine: MakeEngine, door: str) -> AsyncEngine:
    return db.writer_engine if door == "facade" else make_engine(DOORS[door])


async def _lose(engine: AsyncEngine) -> None:
    """Leave behind a session in a reference cycle, which only the garbage collector finds."""
    session = AsyncSession(engine)
    await session.execute(UPDATE_FIRST)


@pytest.fixture
def no_collection_by_itself() -> Any:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection_by_itself")
@pytest.mark.parametrize("door", ENGINES)
async def test_the_task_itself_writes_again(path: Path, make_engine: MakeEngine, door: str) -> None:
    """The lost session is rolled back first; on stock, it is "database is locked" until then."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        engine = _engine(db, make_engine, door)
        for _ in range(3):
            await _lose(engine)
            with pytest.warns(SAWarning, match=r"checked out at test_leaks_of_one_task\.py"):
                async with engine.begin() as connection:
                    await connection.execute(text("UPDATE items SET amount = 7 WHERE id = 2"))
        assert await amounts(db.reader_engine) == [0, 7, 0]
        assert db.statistics().turn.self_deadlocks == 0


@pytest.mark.usefixtures("no_collection_by_itself")
async def test_functions_write_again(db: SQLiteDatabase) -> None:
    """run_write() is included."""
    await create_items(db.writer_engine)
    await _lose(db.writer_engine)
    with pytest.warns(SAWarning, match="non-checked-in"):
        await db.run_write_core(lambda connection: connection.execute(UPDATE_FIRST) and None)
    assert await amounts(db.reader_engine) == [1, 0, 0]


@pytest.mark.parametrize("door", ENGINES)
async def test_what_it_still_has_is_refused(
    path: Path, make_engine: MakeEngine, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused at once, with one collection per session, not one per refusal."""
    collections = []
    collect = gc.collect

    def count_and_collect(generation: int = 2) -> int:
        collections.append(generation)
        return collect(generation)

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        engine = _engine(db, make_engine, door)
        async with AsyncSession(engine) as kept:
            await kept.execute(UPDATE_FIRST)
            monkeypatch.setattr(gc, "collect", count_and_collect)
            for _ in range(3):
                with pytest.raises(TurnAlreadyHeldError):
                    async with engine.begin() as connection:
                        await connection.execute(UPDATE_FIRST)
            monkeypatch.undo()
            await kept.commit()
        assert collections == [0, 1, 2]
        assert await amounts(db.reader_engine) == [1, 0, 0]


async def test_a_writer_beside_its_own_reads_is_not_slowed_down(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is refused, there is no collection."""
    await create_items(db.writer_engine)

    def fail(_: int = 2) -> int:
        raise AssertionError

    monkeypatch.setattr(gc, "collect", fail)
    for _ in range(3):
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            async with db.read() as reading:
                await reading.execute(text("SELECT 1"))
    tasks = [asyncio.create_task(_write(db)) for _ in range(5)]
    await asyncio.gather(*tasks)


async def _write(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
