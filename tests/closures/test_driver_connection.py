"""SQLite's own connection inside a function may do anything but end the transaction."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from sa_sqlite_pool import ClosureError, SQLiteDatabase
from tests.closures.work import Sent, add, added, ids, in_line
from tests.helpers import Item


def raw(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _commit(driver: sqlite3.Connection) -> None:
    driver.commit()


def _rollback(driver: sqlite3.Connection) -> None:
    driver.rollback()


def _text(driver: sqlite3.Connection) -> None:
    driver.execute("COMMIT")  # which the previous transaction has compiled already


def _comment(driver: sqlite3.Connection) -> None:
    driver.cursor().execute("/* at last */ end transaction")


def _rollback_text(driver: sqlite3.Connection) -> None:
    driver.execute("ROLLBACK")


def _begin(driver: sqlite3.Connection) -> None:
    driver.execute("BEGIN")


def _script(driver: sqlite3.Connection) -> None:
    driver.executescript("CREATE TABLE scripted (id)")


def _script_of_a_cursor(driver: sqlite3.Connection) -> None:
    driver.cursor().executescript("INSERT INTO items (id, amount) VALUES (70, 1)")


def _block(driver: sqlite3.Connection) -> None:
    with driver:
        driver.execute("INSERT INTO items (id, amount) VALUES (70, 1)")


def _isolation(driver: sqlite3.Connection) -> None:
    driver.isolation_level = None  # commits


ENDS = [
    *(_commit, _rollback, _text, _comment, _rollback_text),
    *(_begin, _script, _script_of_a_cursor, _block, _isolation),
]


def ends(connection: Connection, end: Callable[[sqlite3.Connection], None]) -> None:
    add(connection, 11)
    end(raw(connection))


def hides(connection: Connection, end: Callable[[sqlite3.Connection], None]) -> None:
    add(connection, 11)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        end(raw(connection))


def goes_on(connection: Connection, end: Callable[[sqlite3.Connection], None]) -> None:
    hides(connection, end)
    add(connection, 12)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("fn", [ends, hides, goes_on])
async def test_it_does_not_end_the_transaction(
    db: SQLiteDatabase, path: Path, sent: Sent, fn: Callable[..., None], end: Callable[..., None]
) -> None:
    """The attempt is refused in advance: the group's other work is kept, its own is not."""
    await db.run_write_core(add, 20)
    sent.clear()
    first, second, third = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, fn, end),
        partial(db.run_write_core, add, 13),
    )
    assert (first, third) == (10, 13)
    assert isinstance(second, ClosureError)
    assert "on the driver's connection" in str(second)
    assert await added(db) == [10, 13, 20]
    assert sent.starting("COMMIT") == 1


@pytest.mark.parametrize("end", [_commit, _rollback, _text, _script])
async def test_nor_does_it_in_a_read(
    db: SQLiteDatabase, end: Callable[[sqlite3.Connection], None]
) -> None:
    """The rest of the function would see another snapshot."""

    def read(connection: Connection) -> None:
        ids(connection)
        end(raw(connection))

    with pytest.raises(ClosureError, match="on the driver's connection"):
        await db.run_read_core(read)
    assert await db.run_read_core(ids) == [1, 2, 3]


async def test_its_error_may_become_the_functions_own(db: SQLiteDatabase) -> None:
    """An error that the function raises instead is raised unchanged."""

    def translate(connection: Connection) -> None:
        hides(connection, _commit)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.run_write_core(translate)
    assert await added(db) == []


async def test_everything_else_works(db: SQLiteDatabase, tmp_path: Path) -> None:
    """Statements, savepoints, functions and dumps work in the function's transaction."""

    def use(connection: Connection) -> list[Any]:
        driver = raw(connection)
        driver.execute("INSERT INTO items (id, amount) VALUES (10, 1)")
        driver.executemany("INSERT INTO items (id, amount) VALUES (?, 1)", [(11,), (12,)])
        for sql in "SAVEPOINT a", "DELETE FROM items", "ROLLBACK TO a", "RELEASE a":
            driver.execute(sql)
        driver.create_function("seven", 0, lambda: 7)
        connection.execute(text("INSERT INTO items (id, amount) VALUES (13, seven())"))
        with connection.begin_nested():
            driver.execute("INSERT INTO items (id, amount) VALUES (14, 1)")
        assert sum("INSERT INTO" in line for line in driver.iterdump()) == 8
        return [driver.in_transaction, driver.total_changes > 0]

    assert await db.run_write_core(use) == [True, True]
    assert await added(db) == [10, 11, 12, 13, 14]


async def test_a_stream_goes_on_beside_it(db: SQLiteDatabase) -> None:
    """A statement that is already running is not affected."""

    def read(connection: Connection) -> list[int]:
        rows = connection.execution_options(yield_per=1).execute(select(Item.id))
        found = [next(rows).id]
        raw(connection).execute("SELECT 1")
        return [*found, *(row.id for row in rows)]

    for run in (db.run_read_core, db.run_write_core):
        assert await run(read) == [1, 2, 3]


async def test_the_guard_is_asked_as_before(db: SQLiteDatabase) -> None:
    """A reader cannot use it to write, and later writes of others work as before."""

    def write(connection: Connection) -> None:
        raw(connection).execute("DELETE FROM items")

    with pytest.raises(sqlite3.DatabaseError):
        await db.run_read_core(write)
    await db.run_write_core(lambda connection: raw(connection).execute("SELECT 1").fetchall())
    async with db.write() as session:
        session.add(Item(id=10))
    async with db.writer_engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        await connection.execute(text("INSERT INTO items (id, amount) VALUES (11, 1)"))
        await connection.exec_driver_sql("COMMIT")
    assert await added(db) == [10, 11]


async def test_an_authorizer_of_the_application(db: SQLiteDatabase) -> None:
    """If the function has installed one instead, the end is noticed afterwards, and no call is
    acknowledged wrongly."""

    def end(connection: Connection) -> None:
        add(connection, 10)
        raw(connection).set_authorizer(lambda *_: sqlite3.SQLITE_OK)
        raw(connection).rollback()

    with pytest.raises(Exception, match="on the driver's connection"):
        await db.run_write_core(end)
    assert await added(db) == []
    assert await db.run_write_core(add, 11) == 11


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("INSERT INTO items (id, amount) VALUES (11, 1)", None),
        ("COMMIT", "COMMIT on the driver's connection"),
        (
            "INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)",
            "rolled back this transaction",
        ),
    ],
)
async def test_in_a_listener_of_the_session(
    db: SQLiteDatabase, sql: str, message: str | None
) -> None:
    """The same applies after the function and before its COMMIT, which is SQLAlchemy's."""

    def before_commit(session: Session) -> None:
        with contextlib.suppress(sqlite3.Error):
            raw(session.connection()).execute(sql)

    def fn(session: Session) -> None:
        event.listen(session, "before_commit", before_commit)
        session.add(Item(id=10))
        session.flush()

    if message is None:
        await db.run_write(fn)
        assert await added(db) == [10, 11]
        return
    with pytest.raises(SQLAlchemyError, match=message):
        await db.run_write(fn)
    assert await added(db) == []
