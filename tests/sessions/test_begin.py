"""``engine.begin()`` of the facade's engines does what SQLAlchemy's own does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, TurnAlreadyHeldError
from sa_sqlite_pool.sessions.lean import LeanConnection, LeanEngine
from tests.helpers import (
    UPDATE_FIRST,
    SleepingFunction,
    create_items,
    turn_of,
    until,
    until_waiting,
)
from tests.sessions.begin import amount, nothing_held, on_begin, own, sqlalchemys

ERRORS = [ValueError("a"), StopIteration(1), StopAsyncIteration(), KeyboardInterrupt()]
SLOW = "SELECT sleep()"


@pytest.fixture
def sleeping() -> SleepingFunction:
    return SleepingFunction()


@pytest.fixture
async def db(path: Path, sleeping: SleepingFunction) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(path, on_connect=sleeping.on_connect) as database:
        await create_items(database.writer_engine)
        yield database


@pytest.fixture(params=[own, sqlalchemys])
def engine(request: pytest.FixtureRequest, db: SQLiteDatabase) -> AsyncEngine:
    """Return the facade's engine, or SQLAlchemy's on top of it: each test holds for both."""
    engine: AsyncEngine = request.param(db.writer_engine)
    return engine


# -- the end -------------------------------------------------------------------------------------


async def test_it_commits(engine: AsyncEngine, db: SQLiteDatabase, path: Path) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        assert turn_of(path).holder is not None
    await nothing_held(db, path)
    assert await amount(db) == 1


@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_rolls_back(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path, error: BaseException
) -> None:
    """The error is raised unchanged, whatever it is."""
    with pytest.raises(type(error)) as caught:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            raise error
    assert caught.value is error
    await nothing_held(db, path)
    assert await amount(db) == 0


async def test_an_error_of_commit(engine: AsyncEngine, db: SQLiteDatabase, path: Path) -> None:
    """The error is raised, and the connection is returned nevertheless."""

    def refuse(_: Connection) -> None:
        raise ValueError("not now")

    event.listen(engine.sync_engine, "commit", refuse)
    with pytest.raises(ValueError, match="not now"):
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
    event.remove(engine.sync_engine, "commit", refuse)
    await nothing_held(db, path)
    assert await amount(db) == 0


@pytest.mark.parametrize("way", ["return", "break"])
async def test_leaving_commits(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path, way: str
) -> None:
    async def leave() -> None:
        while True:
            async with engine.begin() as connection:
                await connection.execute(UPDATE_FIRST)
                if way == "return":
                    return
                break

    await leave()
    await nothing_held(db, path)
    assert await amount(db) == 1


async def test_a_generator_that_is_closed_rolls_back(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path
) -> None:
    """In the middle of the block, GeneratorExit is an error like any other."""

    async def generate() -> AsyncGenerator[int, None]:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            yield 1

    generator = generate()
    assert await anext(generator) == 1
    await generator.aclose()
    await nothing_held(db, path)
    assert await amount(db) == 0


# -- the beginning -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("not today"), asyncio.CancelledError("not today")])
async def test_a_listener_that_raises(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path, error: BaseException
) -> None:
    """Whatever it raises, no connection stays checked out or is left to the garbage collector."""

    def refuse(_: Connection) -> None:
        raise error

    end = on_begin(engine, refuse)
    with pytest.raises(type(error), match="not today") as caught:
        async with engine.begin():
            pytest.fail("it has not begun")
    end()
    assert caught.value is error  # it leads to all that existed
    await nothing_held(db, path)


async def test_a_listener_that_executes(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path
) -> None:
    """Its statement is part of the transaction."""
    end = on_begin(engine, lambda connection: connection.execute(UPDATE_FIRST))
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    with pytest.raises(ValueError, match="rolled back"):
        async with engine.begin():
            raise ValueError("rolled back")
    end()
    await nothing_held(db, path)
    assert await amount(db) == 2


async def test_the_turn_is_held_already(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path
) -> None:
    """A task that would wait for itself gets an error, and its first transaction continues."""
    async with engine.begin() as connection:
        with pytest.raises(TurnAlreadyHeldError):
            async with engine.begin():
                pytest.fail("it has not begun")
        await connection.execute(UPDATE_FIRST)
    await nothing_held(db, path)
    assert await amount(db) == 1


# -- inside --------------------------------------------------------------------------------------


async def test_the_transaction_inside(engine: AsyncEngine, db: SQLiteDatabase) -> None:
    """It is known as the connection's transaction, and may have savepoints."""
    async with engine.begin() as connection:
        transaction = connection.get_transaction()
        assert transaction is not None
        assert connection.in_transaction()
        assert not connection.in_nested_transaction()
        assert transaction.is_active
        assert transaction == connection.get_transaction()
        assert transaction.connection is connection
        assert transaction.sync_transaction is connection.sync_connection.get_transaction()  # type: ignore[union-attr]
        async with connection.begin_nested():
            assert connection.in_nested_transaction()
            await connection.execute(UPDATE_FIRST)
        with pytest.raises(ValueError, match="a part"):
            async with connection.begin_nested():
                await connection.execute(UPDATE_FIRST)
                raise ValueError("a part")
    assert not transaction.is_active
    assert await amount(db) == 1


async def test_the_transaction_ends_by_hand(engine: AsyncEngine, db: SQLiteDatabase) -> None:
    """Its own methods work like those of the connection."""
    for end in ("commit", "rollback", "close"):
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            transaction = connection.get_transaction()
            assert transaction is not None
            await getattr(transaction, end)()
            assert not connection.in_transaction()
    assert await amount(db) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_what_follows_an_end_by_hand_is_refused(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path, end: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        await getattr(connection, end)()
        with pytest.raises(InvalidRequestError, match="complete the context manager before"):
            await connection.execute(UPDATE_FIRST)
    await nothing_held(db, path)
    assert await amount(db) == (1 if end == "commit" else 0)


async def test_another_beginning_inside_is_refused(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        with pytest.raises(InvalidRequestError, match=r"already initialized .* Transaction\(\)"):
            await connection.begin()
        with pytest.raises(InvalidRequestError, match="already started"):
            await connection.start()


async def test_closing_by_hand_rolls_back(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path
) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.close()
    await nothing_held(db, path)
    assert await amount(db) == 0


async def test_after_the_block_it_is_closed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        pass
    assert connection.closed
    with pytest.raises(ResourceClosedError, match="This Connection is closed"):
        await connection.execute(UPDATE_FIRST)


async def test_what_sqlalchemy_looks_up_is_the_same(engine: AsyncEngine) -> None:
    """SQLAlchemy's connection leads to its asyncio object, from the first event on."""
    found: list[AsyncConnection | None] = []

    def look_up(connection: Connection) -> None:
        found.append(AsyncConnection._retrieve_proxy_for_target(connection, regenerate=False))

    end = on_begin(engine, look_up)
    async with engine.begin() as connection:
        assert found == [connection]
        assert isinstance(connection, LeanConnection) == isinstance(engine, LeanEngine)
    end()


async def test_options_of_the_engine_hold(engine: AsyncEngine) -> None:
    async with engine.execution_options(mine=1).begin() as connection:
        assert connection.sync_connection is not None
        assert connection.sync_connection.get_execution_options()["mine"] == 1


# -- more than once ------------------------------------------------------------------------------


async def test_a_block_is_entered_once(engine: AsyncEngine, db: SQLiteDatabase, path: Path) -> None:
    """It can be entered again neither inside nor after itself, and its connection is returned."""
    block = engine.begin()
    async with block as connection:
        with pytest.raises((InvalidRequestError, AttributeError)):
            await block.__aenter__()
        await connection.execute(UPDATE_FIRST)
    with pytest.raises((InvalidRequestError, RuntimeError, AttributeError)):
        await block.__aenter__()
    await nothing_held(db, path)
    assert await amount(db) == 1


async def test_entering_again_says_what_to_do(db: SQLiteDatabase) -> None:
    block = db.writer_engine.begin()
    async with block:
        pass
    with pytest.raises(InvalidRequestError, match=r"once: call begin\(\) again"):
        await block.__aenter__()


async def test_it_decorates(engine: AsyncEngine, db: SQLiteDatabase, path: Path) -> None:
    """Each call of the function has its own transaction."""
    seen: list[object] = []

    @engine.begin()
    async def work(value: int) -> int:
        seen.append(turn_of(path).holder)
        return value

    assert [await work(1), await work(2)] == [1, 2]
    assert None not in seen
    await nothing_held(db, path)


# -- cancellations -------------------------------------------------------------------------------


async def cancel(task: asyncio.Task[None], times: int = 1) -> None:
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)


async def assert_cancelled(task: asyncio.Task[None]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_in_line(engine: AsyncEngine, db: SQLiteDatabase, path: Path) -> None:
    async def work() -> None:
        async with engine.begin():
            pytest.fail("it has not begun")

    async with db.writer_engine.connect():
        task = asyncio.create_task(work())
        await until_waiting(1, turn_of(path))
        task.cancel()
        await assert_cancelled(task)
    await nothing_held(db, path)


@pytest.mark.needs_thread
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_while_it_begins(
    engine: AsyncEngine, db: SQLiteDatabase, path: Path, sleeping: SleepingFunction, times: int
) -> None:
    """A listener's statement is cancelled repeatedly, even while it is rolled back."""

    async def work() -> None:
        async with engine.begin():
            pytest.fail("it has not begun")

    end = on_begin(engine, lambda connection: connection.execute(text(SLOW)))
    task = asyncio.create_task(work())
    await until(sleeping.inside.is_set)
    await cancel(task, times)
    sleeping.leave.set()
    await assert_cancelled(task)
    end()
    await nothing_held(db, path)


async def test_cancelled_inside(engine: AsyncEngine, db: SQLiteDatabase, path: Path) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await assert_cancelled(task)
    await nothing_held(db, path)
    assert await amount(db) == 0
