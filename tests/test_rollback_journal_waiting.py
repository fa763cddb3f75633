"""Without WAL, a COMMIT waits for all readers, and new readers wait for the COMMIT.

A reader holds a SHARED lock from its first statement to its end. A COMMIT takes PENDING, which
blocks new readers, waits for all readers, and writes (https://www.sqlite.org/lockingv3.html).

    Reader            | Writer              | New reader
    BEGIN; SELECT     |                     |
                      | BEGIN IMMEDIATE …   |
                      | COMMIT: waits       |
                      |                     | SELECT: waits
    ROLLBACK          |                     |
                      | (goes on)           | (goes on)
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import (
    OwnLockError,
    ReaderPool,
    ReadTimeout,
    WriterPool,
    WriteTimeout,
)
from sa_sqlite_pool.driver import attempts, performing
from sa_sqlite_pool.transactions.locks import may_pass
from tests.conftest import MakeEngine
from tests.helpers import (
    ENDLESS,
    UPDATE_FIRST,
    create_items,
    until_free,
)
from tests.rollback_journals import READ, Door, make_door, until_pending

__all__ = ["make_door"]


async def test_a_commit_waits_for_readers_and_keeps_new_ones_out(make_door: Any) -> None:
    """All continue as drawn above, and a chain of readers does not starve the commit."""
    door = await make_door()
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        coming = asyncio.create_task(door.total())
        await reader.scalar(READ)
        assert not adding.done()
        assert not coming.done()
    await adding
    assert await coming == 1


async def test_a_reader_that_stays_is_named_to_the_writer(make_door: Any, path: Path) -> None:
    """Clear waits: task, time, line, SQL and remedy; the transaction is rolled back."""
    door = await make_door(write_timeout=0.1)

    async def report(reading: asyncio.Event, done: asyncio.Event) -> None:
        async with door.read() as reader:
            await reader.scalar(READ)
            reading.set()
            await done.wait()

    reading, done = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(report(reading, done), name="report")
    await reading.wait()
    with pytest.raises(WriteTimeout) as caught:
        await door.add()
    message = str(caught.value)
    assert message.startswith(
        "waited 0.10 s to commit to app.db, and rolled back; without WAL, a commit waits until "
        "no read transaction is open, and one has been held open for "
    )
    assert "by task 'report' (now at test_rollback_journal_waiting.py:" in message
    assert "last SQL: SELECT sum(amount) FROM items)" in message
    assert "raise write_timeout" in message
    assert await door.total() == 0  # no lock is left
    done.set()
    await task
    await door.add()
    assert await door.total() == 1


async def test_a_task_that_waits_for_itself_is_told(make_door: Any) -> None:
    """A write inside the same task's read works with WAL; without WAL, it is refused at once."""
    door = await make_door(write_timeout=30.0)
    async with door.read() as reader:
        await reader.scalar(READ)
        with pytest.raises(OperationalError, match="would wait for itself") as caught:
            await door.add()
        assert isinstance(caught.value.orig, OwnLockError)
    await door.add()


async def test_autocommit_waits_as_a_commit_does(make_door: Any) -> None:
    """There is no COMMIT in this case; the statement's error names the reader."""
    door = await make_door(write_timeout=0.1)
    async with door.read() as reader:
        await reader.scalar(READ)

        async def write() -> None:  # in a separate task: the reader's would wait for itself
            async with door.writer.connect() as connection:
                autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await autocommit.execute(UPDATE_FIRST)

        with pytest.raises(WriteTimeout, match=r"waited 0\.10 s to commit .* one has been held"):
            await asyncio.create_task(write())


async def test_what_keeps_a_new_reader_out_is_named(make_door: Any) -> None:
    """The error names the reader for which a COMMIT waits."""
    door = await make_door(read_timeout=0.1)
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        with pytest.raises(ReadTimeout) as caught:
            await door.total()
        assert str(caught.value).startswith(
            "waited 0.10 s to read from app.db; without WAL, no read transaction can begin while a "
            "commit waits for the open ones, and one has been held open for "
        )
        assert "raise read_timeout" in str(caught.value)
    await adding
    assert await door.total() == 1


async def test_opening_a_reader_waits_as_long_as_reading(make_engine: MakeEngine) -> None:
    """It does not wait until write_timeout, which may be long."""
    pragmas = {"journal_mode": "TRUNCATE"}
    writer = make_engine(WriterPool, pragmas=pragmas)
    reader = make_engine(ReaderPool, pragmas=pragmas, read_timeout=0.1)
    await create_items(writer)
    door = Door(writer, reader)
    async with door.read() as first:
        await first.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        with pytest.raises(OperationalError, match=r"waited 0\.10 s to open app\.db .* is locked"):
            await door.total()
    await adding


async def test_somebody_outside_is_not_mistaken_for_a_reader(make_door: Any, path: Path) -> None:
    """BEGIN IMMEDIATE waits only for writers."""
    door = await make_door(write_timeout=0.1, read_timeout=0.1)
    shell = sqlite3.connect(path, isolation_level=None, timeout=0)
    shell.execute("BEGIN IMMEDIATE")
    async with door.read() as reader:
        await reader.scalar(READ)
        with pytest.raises(WriteTimeout, match=r"another connection.* holds SQLite's lock"):
            await door.add()
    shell.execute("ROLLBACK")
    shell.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ReadTimeout, match="another connection holds SQLite's lock exclusively"):
        await door.total()
    shell.close()
    assert await door.total() == 0


async def test_readers_wait_where_python_does_not_tell_the_code(
    make_door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.10: "locked" in a reader's transaction does not mean a stale snapshot."""

    def by_text_alone(error: sqlite3.Error, *, in_transaction: bool) -> bool:
        return may_pass(sqlite3.OperationalError(str(error)), in_transaction=in_transaction)

    for module in (attempts, performing):
        monkeypatch.setattr(module, "may_pass", by_text_alone)
    await test_a_commit_waits_for_readers_and_keeps_new_ones_out(make_door)


async def test_a_commit_that_waits_can_be_cancelled(make_door: Any, path: Path) -> None:
    """Nothing is committed, no lock is left, and the turn passes on."""
    door = await make_door()
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        await until_free(path)
        assert await door.total() == 0  # new readers are admitted again
    await door.add()
    assert await door.total() == 1


async def test_a_reader_that_waits_can_be_cancelled(make_door: Any) -> None:
    """It leaves no lock behind."""
    door = await make_door()
    async with door.read() as reader:
        await reader.scalar(READ)
        adding = asyncio.create_task(door.add())
        await until_pending(door)
        coming = asyncio.create_task(door.total())
        await asyncio.sleep(0)
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
    await adding
    assert await door.total() == 1


async def test_a_cancelled_reader_lets_the_commit_go_on(make_door: Any) -> None:
    """The reader's statement is stopped, and its lock is released."""
    door = await make_door()
    running = asyncio.Event()

    async def read_for_ever() -> None:
        async with door.read() as reader:
            await reader.scalar(READ)
            running.set()
            await reader.execute(ENDLESS)

    reading = asyncio.create_task(read_for_ever())
    await running.wait()
    adding = asyncio.create_task(door.add())
    await until_pending(door)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await adding
    assert await door.total() == 1
