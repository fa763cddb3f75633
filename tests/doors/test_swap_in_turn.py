"""Door 1: when the write turn is acquired, and when it is released."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool, WriterPool
from sa_sqlite_pool.transactions.writing import Writing
from sa_sqlite_pool.turn.write_turn import WriteTurn
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, driver, turn_of, until_waiting


async def test_reading_opens_no_transaction(path: Path, swap_in: AsyncEngine) -> None:
    """As with the stock driver, an idle session that has read pins no snapshot and no turn."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(select(Item.id))
        assert not (await driver(connection)).in_transaction
        assert turn_of(path).holder is None


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_the_turn_lasts_from_the_first_write_to_the_end(
    path: Path, swap_in: AsyncEngine, end: str
) -> None:
    """Serialized writes: the first write acquires the turn; commit or rollback releases it."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        holder = turn_of(path).holder
        assert holder is not None
        assert holder.task is asyncio.current_task()
        assert holder.last_sql == str(UPDATE_FIRST)
        await getattr(connection, end)()
        assert turn_of(path).holder is None


async def test_a_free_turn_is_taken_without_an_await(
    swap_in: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_items(swap_in)
    monkeypatch.setattr(Writing, "begin", None)
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    assert await amounts(swap_in) == [1, 0, 0]


@pytest.mark.parametrize("found", [None, OSError("it cannot be opened")])
async def test_a_file_turn_that_is_not_free(
    path: Path, swap_in: AsyncEngine, monkeypatch: pytest.MonkeyPatch, found: OSError | None
) -> None:
    """The turn within the process is acquired first, once, and released at the end or on error."""
    await create_items(swap_in)
    turn, waited = turn_of(path), asyncio.Event()
    before = turn.statistics().waits.at_once

    def enter_nowait(_: WriteTurn) -> None:
        if found is not None:
            raise found

    async def enter(*_: object, **__: object) -> object:
        waited.set()
        monkeypatch.undo()
        return turn.enter_nowait()

    monkeypatch.setattr(WriteTurn, "enter_nowait", enter_nowait)
    monkeypatch.setattr(WriteTurn, "enter", enter)
    async with swap_in.connect() as connection:
        if found is None:
            await connection.execute(UPDATE_FIRST)
            assert turn.holder is not None
        else:
            with pytest.raises(OSError, match="cannot be opened"):
                await connection.execute(UPDATE_FIRST)
            assert turn.holder is None
        await connection.rollback()
    assert turn.holder is None
    assert waited.is_set() is (found is None)
    assert turn.statistics().waits.at_once == before + 1


async def test_a_failed_statement_that_opened_nothing_keeps_no_turn(
    path: Path, swap_in: AsyncEngine
) -> None:
    """PRAGMA optimize needs the turn without a transaction, so it is released at once."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(text("PRAGMA optimize"))
        assert turn_of(path).holder is None
        with pytest.raises(OperationalError):
            await connection.execute(text("VACUUM nonsense"))
        assert turn_of(path).holder is None


async def test_engines_on_one_file_share_the_turn(path: Path, make_engine: MakeEngine) -> None:
    """Serialized writes over all engines of the process, in order of arrival, without polling.

    First engine   | Second engine       | A writer engine
    UPDATE         |                     |
                   | UPDATE (in line)    |
                   |                     | UPDATE (in line)
    COMMIT         | runs                |
    """
    first, second, third = make_engine(SQLitePool), make_engine(SQLitePool), make_engine(WriterPool)
    await create_items(first)
    order: list[str] = []

    async def write(engine: AsyncEngine, name: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            order.append(name)

    turn = turn_of(path)
    async with first.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        tasks = [asyncio.create_task(write(second, "second"))]
        await until_waiting(1, turn)
        tasks.append(asyncio.create_task(write(third, "third")))
        await until_waiting(2, turn)
        order.append("first")
    await asyncio.gather(*tasks)
    assert order == ["first", "second", "third"]
    assert await amounts(first) == [3, 0, 0]


async def test_fifty_writers_at_once(swap_in: AsyncEngine) -> None:
    """There is no "database is locked" and no lost update."""
    await create_items(swap_in)
    engine = swap_in.execution_options(sqlite_role="writer")

    async def read_modify_write() -> None:
        async with engine.begin() as connection:
            amount = await connection.scalar(text("SELECT amount FROM items WHERE id = 1"))
            await asyncio.sleep(0)
            await connection.execute(update(Item).where(Item.id == 1).values(amount=amount + 1))

    await asyncio.gather(*(read_modify_write() for _ in range(50)))
    assert (await amounts(swap_in))[0] == 50


async def test_role_writer_takes_the_turn_with_the_first_statement(
    path: Path, swap_in: AsyncEngine
) -> None:
    """With sqlite_role="writer", even a SELECT begins IMMEDIATE."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execution_options(sqlite_role="writer")
        await connection.execute(select(Item.id))
        assert turn_of(path).holder is not None
    assert turn_of(path).holder is None


async def test_role_reader_sees_one_snapshot(swap_in: AsyncEngine) -> None:
    """With sqlite_role="reader", commits of others stay invisible until its end."""
    await create_items(swap_in)
    async with swap_in.execution_options(sqlite_role="reader").connect() as reading:
        first = (await reading.execute(select(Item.amount))).all()
        async with swap_in.begin() as writing:
            await writing.execute(UPDATE_FIRST)
        assert (await reading.execute(select(Item.amount))).all() == first
        await reading.rollback()
        assert (await reading.execute(select(Item.amount))).all() != first


async def test_the_role_ends_with_the_checkout(swap_in: AsyncEngine) -> None:
    """The option belongs to the connection that set it, not to the one beneath."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execution_options(sqlite_role="reader")
        await connection.execute(select(Item.id))
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)


async def test_an_unknown_role_is_refused(swap_in: AsyncEngine) -> None:
    """The error for a misspelt role lists the valid ones."""
    async with swap_in.connect() as connection:
        await connection.execution_options(sqlite_role="writter")
        with pytest.raises(Exception, match=r"one of 'auto', 'reader', 'writer', not 'writter'"):
            await connection.execute(text("SELECT 1"))


async def test_a_read_that_turns_out_to_write_goes_again_as_a_write(
    path: Path, make_engine: MakeEngine
) -> None:
    """If a function writes inside a SELECT, SQLite refuses, and the adapter acquires the turn."""
    calls: list[bool] = []

    def on_connect(connection: sqlite3.Connection) -> None:
        def restock() -> int:
            calls.append(connection.in_transaction)
            return connection.execute("UPDATE items SET amount = amount + 5").rowcount

        connection.create_function("restock", 0, restock)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    async with engine.begin() as connection:
        assert (await connection.execute(text("SELECT restock()"))).scalar_one() == 3
        assert turn_of(path).holder is not None
    assert await amounts(engine) == [5, 5, 5]
    assert calls == [False, True]  # denied without the turn, then inside a transaction


async def test_the_turn_is_given_back_when_a_connection_is_lost(
    path: Path, swap_in: AsyncEngine
) -> None:
    """A connection that is garbage collected is rolled back and releases the turn."""
    await create_items(swap_in)

    async def forget() -> None:
        connection = await swap_in.connect()
        await connection.execute(UPDATE_FIRST)

    with pytest.warns(Warning, match="non-checked-in connection"):
        await asyncio.create_task(forget())
        gc.collect()
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    assert await amounts(swap_in) == [1, 0, 0]


async def test_a_checkpoint_takes_the_turn(path: Path, swap_in: AsyncEngine) -> None:
    """Safe checkpoints: while one task holds the turn, another's checkpoint waits in line."""
    await create_items(swap_in)

    async def checkpoint() -> None:
        async with swap_in.connect() as connection:
            await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        task = asyncio.create_task(checkpoint())
        await until_waiting(1, turn_of(path))
    await task
    assert path.with_name("app.db-wal").stat().st_size == 0
