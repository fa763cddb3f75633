"""Programs that detect "database is locked", and retry the transaction."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as SATimeoutError

from sa_sqlite_pool import (
    PoolTimeout,
    ReadLockTimeout,
    ReadTimeout,
    TurnAlreadyHeldError,
    WriteTimeout,
)

from .doors import Application, Door, outside

# Seconds, on every door: stock waits as long for SQLite's lock.
PATIENCE = 0.05


async def opened(door: Door) -> Application:
    own = {"write_timeout": PATIENCE, "read_timeout": PATIENCE}
    options: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if door.stock else {}
    app = await door.open(own=own, **options)
    await app.write("CREATE TABLE item (i INTEGER)")
    return app


async def insert(app: Application) -> None:
    async with app.enter() as connection:
        await connection.execute(text("INSERT INTO item VALUES (1)"))
        await connection.commit()


def by_orig(error: OperationalError) -> bool:
    return "database is locked" in str(error.orig)


def by_text(error: OperationalError) -> bool:
    return "database is locked" in str(error)


def by_code(error: OperationalError) -> bool:
    name = getattr(error.orig, "sqlite_errorname", "SQLITE_BUSY")  # Python 3.10 has none
    return name in {"SQLITE_BUSY", "SQLITE_LOCKED"}


async def try_again(
    work: Callable[[], Awaitable[None]],
    locked: Callable[[OperationalError], bool],
    between: Callable[[], Awaitable[None]],
) -> int:
    """Return the number of tries, as typical decorators do."""
    for attempt in range(1, 4):
        try:
            await work()
        except OperationalError as error:
            if not locked(error):
                raise
            await between()
        else:
            return attempt
    raise AssertionError("it is locked for ever")


@pytest.mark.parametrize("locked", [by_orig, by_text, by_code])
async def test_another_program_has_the_lock(
    changing: Door, locked: Callable[[OperationalError], bool]
) -> None:
    """The first try finds the lock held, and the second one writes."""
    app = await opened(changing)
    with outside(app.path) as other:
        other.execute("BEGIN IMMEDIATE")

        async def let_go() -> None:
            other.execute("ROLLBACK")

        assert await try_again(lambda: insert(app), locked, let_go) == 2
    assert await app.value("SELECT count(*) FROM item") == 1


@pytest.mark.parametrize("locked", [by_orig, by_text, by_code])
async def test_another_task_has_the_turn(
    changing: Door, locked: Callable[[OperationalError], bool]
) -> None:
    """The same applies if another task of the program holds the lock."""
    app = await opened(changing)
    began, end = asyncio.Event(), asyncio.Event()

    async def holder() -> None:
        async with app.session() as session:
            await session.execute(text("INSERT INTO item VALUES (0)"))
            began.set()
            await end.wait()

    task = asyncio.create_task(holder())
    await began.wait()

    async def let_go() -> None:
        end.set()
        await task

    assert await try_again(lambda: insert(app), locked, let_go) == 2
    assert await app.value("SELECT count(*) FROM item") == 1


@pytest.mark.parametrize("locked", [by_orig, by_text, by_code])
async def test_the_same_task_has_the_turn(
    changing: Door, locked: Callable[[OperationalError], bool]
) -> None:
    """A helper writes on a separate connection, in the middle of another transaction."""
    app = await opened(changing)
    async with app.session() as session:
        await session.execute(text("INSERT INTO item VALUES (0)"))
        assert await try_again(lambda: insert(app), locked, session.rollback) == 2
    assert await app.value("SELECT count(*) FROM item") == 1


def test_a_refusal_says_what_to_do_first() -> None:
    """The lock comes second in the message; handlers of misuse catch the error, too."""
    error = TurnAlreadyHeldError("write through the session that is open")
    assert isinstance(error, InvalidRequestError)
    assert str(error) == "write through the session that is open (database is locked)"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.orig.sqlite_errorcode) == (type(error), str(error), 5)


@pytest.mark.parametrize("cls", [WriteTimeout, ReadLockTimeout])
def test_both_families(cls: type[WriteTimeout] | type[ReadLockTimeout]) -> None:
    """It is also a time-out, its message comes first, and another process can raise it again."""
    error = cls("waited 1.00 s")
    assert isinstance(error, SATimeoutError)
    assert isinstance(error, OperationalError)
    assert str(error) == "waited 1.00 s (database is locked)"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), str(copy.orig)) == (cls, str(error), str(error.orig))
    assert copy.orig.sqlite_errorcode == 5


def test_no_free_reader_is_no_lock() -> None:
    """Stock raises only TimeoutError if a pool is exhausted, and so does this package."""
    assert issubclass(ReadLockTimeout, ReadTimeout)
    assert issubclass(ReadTimeout, PoolTimeout)
    assert not issubclass(ReadTimeout, OperationalError)
