"""The turns of attached files are released, however the transaction ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SAWarning
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import (
    SQLitePool,
    StatementTimeout,
    WriterPool,
)
from sa_sqlite_pool.transactions import attached as attached_files
from tests.cancelling import cancelled_at
from tests.doors.attached import ENDLESS, MAIN, OTHER, THIRD, Files, files, files_free
from tests.doors.turns import outcome, turn_taken
from tests.helpers import driver, turn_of, until

__all__ = ["files"]


async def write_all(connection: AsyncConnection) -> None:
    await connection.execute(MAIN)
    await connection.execute(THIRD)
    await connection.execute(OTHER)
    await connection.commit()


async def swap_in(files: Files, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await write_all(connection)


async def begins_with_the_other(files: Files, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SAVEPOINT a"))
        await connection.execute(OTHER)
        await write_all(connection)


async def attaches_by_itself(files: Files, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("DETACH other"))
        await connection.execute(text(f"ATTACH '{files.other}' AS other"))
        await connection.execute(text("CREATE TEMP TABLE scratch (i)"))
        await connection.execute(text("INSERT INTO scratch VALUES (1)"))
        await write_all(connection)


OPERATIONS = [swap_in, begins_with_the_other, attaches_by_itself]


@pytest.mark.parametrize("stubborn", [False, True], ids=["once", "again and again"])
@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_at_every_await(
    files: Files,
    operation: Callable[[Files, AsyncEngine], Coroutine[Any, Any, None]],
    poolclass: type,
    stubborn: bool,
) -> None:
    """All files were written or none, and no turn remains held."""
    engine, number, before = files.engine(poolclass, pool_size=1), 1, 0
    while await cancelled_at(operation(files, engine), number, stubborn):
        await files.come_to_rest()
        main, other, third = files.written()
        assert main == len(third)
        assert len(other) in {main, 2 * main}
        assert main - before in {0, 1}
        before, number = main, number + 1
    assert number > 4
    await swap_in(files, engine)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_while_it_waits_for_the_other_turn(
    files: Files, operation: Callable[[Files, AsyncEngine], Coroutine[Any, Any, None]]
) -> None:
    """The tasks that wait behind the cancelled one are served."""
    engine = files.engine(pool_size=2)
    async with turn_taken(files.other):
        working = asyncio.create_task(operation(files, engine))
        await until(lambda: turn_of(files.other).waiting == 1)
        behind = asyncio.create_task(swap_in(files, engine))
        await until(lambda: turn_of(files.main).waiting == 1)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await until(lambda: turn_of(files.other).waiting == 1)
    await behind
    assert files.written() == (1, "+", "+")


async def test_a_connection_that_is_lost_gives_all_turns_back(files: Files) -> None:
    """The garbage collector finds the connection, which is rolled back and releases all turns."""
    engine = files.engine()

    async def lose() -> None:
        connection = await engine.connect()
        await connection.execute(MAIN)
        await connection.execute(OTHER)
        assert turn_of(files.other).holder is not None

    with pytest.warns((RuntimeWarning, ResourceWarning, SAWarning)):
        await asyncio.create_task(lose())
        gc.collect()
    await files.come_to_rest()
    assert files.written() == (0, "", "")


async def test_a_connection_that_is_given_up_while_it_waits(files: Files) -> None:
    """A turn that is granted to a connection after it was recalled is released, too."""
    engine = files.engine()
    connection = await engine.connect()
    raw = await driver(connection)
    async with turn_taken(files.other):
        writing = asyncio.create_task(connection.execute(OTHER))
        await until(lambda: turn_of(files.other).waiting == 1)
        raw.give_up("it was taken back", keep=True)
    with pytest.raises(OperationalError, match="it was taken back"):
        await writing
    await connection.invalidate()
    await connection.close()
    await files.come_to_rest()


async def test_a_statement_that_takes_too_long(files: Files) -> None:
    """The statement is stopped and rolled back; the transaction's end releases the turns."""
    engine = files.engine(statement_timeout=0.05)
    async with engine.connect() as connection:
        await connection.execute(MAIN)
        with pytest.raises(StatementTimeout):
            await connection.execute(ENDLESS)
        await connection.rollback()
        await files_free(files)
        await connection.execute(OTHER)
        await connection.commit()
    assert files.written() == (0, "+", "")


async def test_in_autocommit_each_statement_gives_back(files: Files) -> None:
    """In AUTOCOMMIT, the turns of a statement are held only while it runs."""
    engine = files.engine().execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in (OTHER, MAIN, THIRD):
            await connection.execute(statement)
            assert all(turn.holder is None for turn in files.turns)
        rows = [{"body": body} for body in "ab"]
        await connection.execute(text("INSERT INTO other.notes (body) VALUES (:body)"), rows)
        assert all(turn.holder is None for turn in files.turns)
        assert await outcome(connection, "SELECT count(*) FROM other.notes") == [(3,)]
    assert files.written() == (1, "+", "+")


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
@pytest.mark.parametrize("how", ["commit()", "COMMIT", "autocommit"])
async def test_a_large_log_is_moved_whatever_commits(
    files: Files, poolclass: type, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is checkpointed; SQLite's automatic checkpoint is off, so it would grow for ever."""
    monkeypatch.setattr(attached_files, "_LARGE_LOG", 100)
    options = {"isolation_level": "AUTOCOMMIT"} if how == "autocommit" else {}
    engine = files.engine(poolclass).execution_options(**options)
    async with engine.connect() as connection:
        await connection.execute(text(f"UPDATE other.notes SET body = '{'x' * 100_000}'"))
        if how == "COMMIT":
            await connection.execute(text("COMMIT"))
        await connection.commit()
    assert files.other.stat().st_size > 100_000
    await files.come_to_rest()
