"""The state in which a function that reads leaves its connection, and the next one finds it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures.read_group import ReadGroup
from sa_sqlite_pool.transactions import placement
from tests.closures.work import Inside, Sent, cancelled, ids, waiting
from tests.helpers import ENDLESS, create_items, until


def raw(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


def sets_isolation_level(connection: Connection) -> None:
    raw(connection).isolation_level = "EXCLUSIVE"


def leaves_a_cursor_open(connection: Connection) -> None:
    raw(connection).execute("SELECT id FROM items").fetchone()


def leaves_a_stream_open(connection: Connection) -> None:
    result = connection.execution_options(stream_results=True).execute(text("SELECT * FROM items"))
    result.fetchone()


def leaves_a_savepoint_open(connection: Connection) -> None:
    connection.begin_nested()
    connection.execute(text("SELECT 1"))


def changes_a_setting(connection: Connection) -> None:
    connection.execute(text("PRAGMA cache_size = -3000"))


def sets_a_busy_timeout(connection: Connection) -> None:
    connection.execute(text("PRAGMA busy_timeout = 5"))


def sets_options(connection: Connection) -> None:
    connection.execution_options(sqlite_long_read=True).execute(text("SELECT 1"))


def tries_to_write(connection: Connection) -> None:
    with pytest.raises(Exception, match="cannot change a database"):
        connection.execute(text("DELETE FROM items"))


def ends_its_transaction(connection: Connection) -> None:
    connection.rollback()


def fails(_: Connection) -> None:
    raise ZeroDivisionError


def makes_a_temp_table(connection: Connection) -> None:
    connection.execute(text("CREATE TEMP TABLE IF NOT EXISTS scratch (x)"))
    connection.execute(text("INSERT INTO scratch VALUES (1)"))


LEAVERS = [
    *(sets_isolation_level, leaves_a_cursor_open, leaves_a_stream_open, leaves_a_savepoint_open),
    *(changes_a_setting, sets_options, tries_to_write, ends_its_transaction, fails),
    makes_a_temp_table,
]


@pytest.mark.parametrize("leave", LEAVERS)
async def test_the_next_finds_it_clean(
    one: SQLiteDatabase, leave: Callable[[Connection], None]
) -> None:
    """It has no transaction, level or snapshot of the previous one, and sees later commits."""
    seen: list[Any] = []

    def look(connection: Connection) -> list[int]:
        seen.append((raw(connection).isolation_level, raw(connection).total_changes))
        return ids(connection)

    inside = Inside()
    tasks = [asyncio.ensure_future(one.run_read_core(inside))]
    await inside.until_entered()
    tasks += [asyncio.ensure_future(one.run_read_core(fn)) for fn in (leave, look, look)]
    await asyncio.sleep(0)
    async with one.write() as session:
        await session.execute(text("INSERT INTO items (id, amount) VALUES (10, 0)"))
    inside.leave.set()
    *_, first, second = await asyncio.gather(*tasks, return_exceptions=True)
    assert first == second == [1, 2, 3, 10]
    assert {level for level, _ in seen} == {None}
    async with one.reader_engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM items"))).scalar_one() == 4
        with pytest.raises(OperationalError, match="cannot change a database"):
            await connection.execute(text("DELETE FROM items"))


@pytest.mark.parametrize(
    ("leave", "times"),
    [
        (ids, 1),
        (tries_to_write, 1),
        (fails, 1),
        (makes_a_temp_table, 1),
        (leaves_a_savepoint_open, 1),
        (sets_isolation_level, 2),
        (leaves_a_cursor_open, 2),
        (changes_a_setting, 2),
        (sets_options, 2),
    ],
)
async def test_who_ends_the_borrowing(
    one: SQLiteDatabase,
    leave: Callable[[Connection], None],
    times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If only a check-in resets something, the reader goes through one before the next function."""
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)  # on a busy machine
    told: list[str] = []
    pool: Any = one.reader_engine.sync_engine.pool
    event.listen(pool, "checkout", lambda *_: told.append("checkout"))
    await waiting(one, leave, ids)
    assert told.count("checkout") == times


async def test_options_are_for_one_function(one: SQLiteDatabase) -> None:
    """A transaction that was declared long belongs to that function only."""

    def look(connection: Connection) -> bool:
        found: Any = connection.connection
        return bool(found.long_read)

    (_, after) = await waiting(one, sets_options, look)
    assert after is False


async def test_one_that_was_stopped(one: SQLiteDatabase) -> None:
    """The next one on the same connection finds neither its statement nor its handler."""
    inside = Inside(lambda connection: connection.execute(ENDLESS))
    task = asyncio.ensure_future(one.run_read_core(inside))
    await inside.until_entered()
    after = asyncio.ensure_future(one.run_read_core(ids))
    inside.leave.set()
    await asyncio.sleep(0)
    assert await cancelled(task)
    assert await after == [1, 2, 3]


async def test_a_progress_handler_of_its_own(path: Path) -> None:
    """It stays on the connection, as with the stock driver, and stops nothing of the package."""
    calls: list[int] = []

    def watch(connection: Connection) -> None:
        raw(connection).set_progress_handler(lambda: calls.append(1), 1000)

    async with SQLiteDatabase(path, readers=1) as db:
        await create_items(db.writer_engine)
        await db.run_read_core(watch)
        begun = Inside(lambda connection: connection.execute(ENDLESS))
        task = asyncio.ensure_future(db.run_read_core(begun))
        await begun.until_entered()
        begun.leave.set()
        assert await cancelled(task)
        assert await db.run_read_core(ids) == [1, 2, 3]


async def test_a_function_that_sets_a_busy_timeout(
    db: SQLiteDatabase, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next statement on its reader, which runs on the loop, waits for no lock in SQLite."""
    for name in ("SHORT_SECONDS", "_LONG_SECONDS"):  # however busy the machine is
        monkeypatch.setattr(placement, name, 60.0)

    async def seven() -> None:
        async with db.reader_engine.connect() as connection:
            await connection.execute(text("SELECT 7"))

    for _ in range(5):  # until it is known to be short
        await seven()
    sent.clear()
    await db.run_read_core(sets_a_busy_timeout)
    await until(lambda: not db.reader_engine.sync_engine.pool.checkedout())  # type: ignore[attr-defined]
    await seven()
    assert sent.index("PRAGMA busy_timeout = 0") < sent.index("SELECT 7")
