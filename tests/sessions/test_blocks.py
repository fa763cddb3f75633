"""The contexts of ``db.read()`` and ``db.write()``."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.exc import IntegrityError, InvalidRequestError

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.system.loop_state import of_running_loop
from tests.helpers import Item, amounts, create_items


@pytest.mark.parametrize("name", ["read", "write"])
async def test_a_block_is_entered_once(path: Path, name: str) -> None:
    """A second time raises an error, while its session continues."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        block = getattr(db, name)()
        async with block as session:
            with pytest.raises(
                InvalidRequestError, match=rf"entered only once: call db\.{name}\(\)"
            ):
                await block.__aenter__()
            assert await session.get(Item, 1) is not None


async def test_a_block_decorates_a_function(path: Path) -> None:
    """Each call is a separate block, as with any asynchronous context manager."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        calls: list[int] = []

        @db.write()  # type: ignore[operator]
        async def count(number: int) -> int:
            calls.append(number)
            return number

        assert await count(1) + await count(2) == 3
        assert calls == [1, 2]


@pytest.mark.parametrize("at_commit", [False, True])
async def test_an_object_of_a_block_that_failed(path: Path, at_commit: bool) -> None:
    """It is transient again, as after SQLAlchemy's ``begin()``; another attempt writes its row."""

    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        item = Item(amount=7)
        with pytest.raises(ZeroDivisionError):
            async with db.write() as session:
                session.add(item)
                await session.flush()
                if not at_commit:
                    raise ZeroDivisionError
                event.listen(session.sync_session, "before_commit", fail)
        assert inspect(item).transient
        async with db.write() as session:
            session.add(item)
        async with db.read() as session:
            assert await session.get(Item, item.id) is not None


async def test_a_failed_flush_within_a_savepoint(path: Path) -> None:
    """The savepoint still exists at the end of the block: earlier additions are transient, too."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        item = Item(amount=7)
        with pytest.raises(IntegrityError):
            async with db.write() as session:
                session.add(item)
                await session.flush()
                await session.begin_nested()
                session.add(Item(id=1))
                await session.flush()
        assert inspect(item).transient


async def test_a_listener_that_raises_while_a_block_fails(path: Path) -> None:
    """Its error is raised, as by SQLAlchemy, whichever class it has."""

    def fail(_: object) -> None:
        raise InvalidRequestError("mine")

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        with pytest.raises(InvalidRequestError, match="mine"):
            async with db.write() as session:
                session.add(Item(amount=7))
                await session.flush()
                event.listen(session.sync_session, "after_rollback", fail)
                raise ZeroDivisionError
        async with db.write() as session:
            session.add(Item(amount=8))


async def test_a_block_that_ends_in_a_lap_without_room(path: Path) -> None:
    """If its end needs another connection, it continues in a later lap, without a wake-up."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with db.sessionmaker.begin() as session:
            session.add(Item(amount=7))
            while of_running_loop(LoopBudget).enter_nowait():
                pass
        assert await amounts(db.reader_engine) == [0, 0, 0, 7]


async def test_what_a_failed_block_has_read(path: Path) -> None:
    """A block that reads leaves it unchanged; one that writes may have modified it."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        with pytest.raises(ZeroDivisionError):
            async with db.read() as session:
                item = await session.get_one(Item, 1)
                raise ZeroDivisionError
        assert item.id == 1
