"""Attached files are locked when they are written, in their turns, under all circumstances."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import (
    OwnLockError,
    SQLitePool,
    TurnAlreadyHeldError,
    WriterPool,
    WriteTimeout,
)
from tests.conftest import MakeEngine
from tests.doors.attached import MAIN, OTHER, THIRD, Files, files, files_free
from tests.doors.turns import is_locked, turn_taken
from tests.helpers import UPDATE_FIRST, create_items, driver, turn_of, until, until_free

__all__ = ["files"]


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_what_is_only_read_is_not_locked(files: Files, poolclass: type) -> None:
    """A file that is only read is locked by neither its turn nor SQLite; a written one is."""
    engine = files.engine(poolclass)
    async with turn_taken(files.other) as asked, engine.connect() as connection:
        await connection.execute(text("INSERT INTO items (amount) SELECT id FROM other.notes"))
        assert is_locked(files.main)
        assert not is_locked(files.other)
        assert asked() == 0
        await connection.execute(THIRD)
        assert is_locked(files.third)
        assert turn_of(files.third).holder is not None
        await connection.rollback()
        assert turn_of(files.third).holder is None
    assert files.written() == (0, "", "")


async def test_a_write_to_the_other_file_waits_for_its_turn(files: Files) -> None:
    """The write waits for an engine on that file; both are kept, and SQLite's lock is never met."""
    engine, own = files.engine(), files.engine_of_other()
    async with own.begin() as holder:
        await holder.execute(text("UPDATE notes SET body = body || 'own' WHERE id = 1"))

        async def write() -> None:
            async with engine.begin() as connection:
                await connection.execute(OTHER)

        writing = asyncio.create_task(write())
        await until(lambda: turn_of(files.other).waiting == 1)
    await writing
    assert files.written() == (0, "own+", "")


async def test_the_wait_for_the_other_turn_ends(files: Files) -> None:
    """The error names the file and the holder of its turn, and no turn remains held."""
    engine = files.engine(write_timeout=0.05)
    async with turn_taken(files.other), engine.connect() as connection:
        with pytest.raises(
            WriteTimeout, match=r"waited 0\.05 s to write to [az]\.db; the turn has"
        ):
            await connection.execute(OTHER)
        assert turn_of(files.main).holder is None
        await connection.rollback()
    async with engine.begin() as connection:
        await connection.execute(OTHER)


async def test_two_tasks_in_opposite_order(files: Files) -> None:
    """The main file's turn is acquired first, so they proceed in order, whatever the file names."""
    # First           | Second
    # writes main     |
    #                 | wants other, and therefore main first
    # writes other    |
    # commits         |
    #                 | writes other, then main
    engine = files.engine(write_timeout=20)
    second_waits = asyncio.Event()

    async def first() -> None:
        async with engine.begin() as connection:
            await connection.execute(MAIN)
            await second_waits.wait()
            await connection.execute(OTHER)

    async def second() -> None:
        async with engine.begin() as connection:
            await connection.execute(OTHER)
            await connection.execute(MAIN)

    tasks = [asyncio.create_task(first())]
    await until(lambda: turn_of(files.main).holder is not None)
    tasks.append(asyncio.create_task(second()))
    await until(lambda: turn_of(files.main).waiting == 1)
    assert turn_of(files.other).holder is None
    second_waits.set()
    await asyncio.gather(*tasks)
    assert files.written() == (2, "++", "")


async def test_a_statement_that_writes_several_takes_all_turns_first(files: Files) -> None:
    """All turns are acquired before a statement that writes several files, e.g. by a trigger."""
    engine = files.engine()
    async with engine.connect() as connection:
        for sql in (
            "CREATE TEMP TABLE start (id)",
            "CREATE TEMP TRIGGER t AFTER INSERT ON start BEGIN "
            "UPDATE items SET amount = 5 WHERE id = 1; "
            "DELETE FROM notes WHERE id = 1; END",  # of the first file that has such a table
        ):
            await connection.execute(text(sql))
        await connection.execute(text("INSERT INTO start VALUES (1)"))
        assert turn_of(files.main).holder is not None
        assert turn_of(files.other).holder is not None
        assert turn_of(files.third).holder is None
        await connection.rollback()


async def test_a_task_that_has_the_other_turn_is_told(files: Files) -> None:
    """The error is raised at once, because the task would wait for itself."""
    engine, own = files.engine(), files.engine_of_other()
    async with own.begin() as holder:
        await holder.execute(text("UPDATE notes SET body = 'own'"))
        async with engine.connect() as connection:
            with pytest.raises(TurnAlreadyHeldError, match="this task already holds the write"):
                await connection.execute(OTHER)


async def test_a_file_that_is_attached_under_the_name_of_another(files: Files) -> None:
    """What was found out about a statement for the first file does not apply to the second."""
    async with files.engine().connect() as connection:
        await connection.execute(OTHER)
        await connection.commit()
        await connection.execute(text("DETACH other"))
        await connection.execute(text("DETACH third"))
        await connection.execute(text(f"ATTACH '{files.third}' AS other"))
        await connection.execute(OTHER)
        assert turn_of(files.other).holder is None
        assert turn_of(files.third).holder is not None
        await connection.commit()
    assert files.written() == (0, "+", "+")


async def test_main_under_a_second_name(files: Files) -> None:
    """The main file is not taken for an outsider; writing it under both names is reported."""
    engine = files.engine()
    async with engine.connect() as connection:
        await connection.execute(text(f"ATTACH '{files.main}' AS again"))
        await connection.execute(text("UPDATE again.items SET amount = 3 WHERE id = 1"))
        with pytest.raises(OperationalError, match="attached twice, the second time as again") as e:
            await connection.execute(MAIN)
        assert isinstance(e.value.orig, OwnLockError)
        await connection.rollback()
        await connection.execute(MAIN)
        await connection.commit()
    assert files.written() == (1, "", "")


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_an_outsider_on_the_other_file_is_waited_for(files: Files, poolclass: type) -> None:
    """As for the main file, the statement is retried until the lock is free, and runs once."""
    engine = files.engine(poolclass)
    with closing(sqlite3.connect(files.other, isolation_level=None)) as outsider:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.rollback()
            outsider.execute("BEGIN IMMEDIATE")
            raw = await driver(connection)
            hops = raw.worker.hops
            writing = asyncio.create_task(connection.execute(OTHER))
            await until(lambda: raw.worker.hops > hops + 3)
            outsider.execute("ROLLBACK")
            await writing
            await connection.commit()
    assert files.written() == (0, "+", "")


async def test_an_outsider_that_stays_is_named(files: Files) -> None:
    """The error is raised after ``write_timeout``, and no turn remains held."""
    engine = files.engine(write_timeout=0.05)
    with closing(sqlite3.connect(files.other, isolation_level=None)) as outsider:
        outsider.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            with pytest.raises(WriteTimeout, match="holds SQLite's lock"):
                await connection.execute(OTHER)
            await files_free(files)
            await connection.rollback()


async def test_a_function_that_writes_takes_all_turns(files: Files) -> None:
    """All turns are acquired, because it is not known which file the function is about to write."""

    def on_connect(connection: sqlite3.Connection) -> None:
        def write() -> int:
            connection.execute("UPDATE other.notes SET body = 'by a function'")
            return 1

        connection.create_function("write", 0, write)

    engine = files.engine(on_connect=on_connect)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT write()"))
        assert all(turn.holder is not None for turn in files.turns)
        await connection.rollback()
    assert files.written() == (0, "", "")


async def test_without_attached_files_a_transaction_begins_immediate(
    make_engine: MakeEngine, path: Path
) -> None:
    """A single BEGIN acquires the lock, and no query about attached files is sent."""
    ran: list[str] = []
    engine = make_engine(SQLitePool, on_connect=lambda c: c.set_trace_callback(ran.append))
    await create_items(engine)
    ran.clear()
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    await until_free(path)
    assert ran == ["BEGIN IMMEDIATE", UPDATE_FIRST.text, "COMMIT"]
