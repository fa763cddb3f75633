"""Rollbacks by SQLite itself: each affected call gets an error that says so, and no other does."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from sa_sqlite_pool import SQLiteDatabase, TransactionLostError
from sa_sqlite_pool.closures.early_end import comes_from
from tests.closures.work import add, added, in_line
from tests.helpers import Item

OR_ROLLBACK = text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)")


class MissingError(Exception):
    """An error of the application."""


class LeaveError(BaseException):
    """An error that ``except Exception`` does not catch."""


def raw(connection: Connection) -> Any:
    return connection.connection.driver_connection


def tells(error: object) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, TransactionLostError)


# -- the function that loses it ------------------------------------------------------------------


def lets_out(connection: Connection) -> None:
    connection.execute(OR_ROLLBACK)


def translates(connection: Connection) -> None:
    try:
        connection.execute(OR_ROLLBACK)
    except IntegrityError as error:
        raise MissingError("there is one already") from error


def translates_in_silence(connection: Connection) -> None:
    with contextlib.suppress(ZeroDivisionError):
        try:
            connection.execute(OR_ROLLBACK)
        finally:
            raise MissingError("there is one already")


@pytest.mark.parametrize(
    ("fn", "error"),
    [(lets_out, IntegrityError), (translates, MissingError), (translates_in_silence, MissingError)],
)
async def test_its_own_error_stays(
    db: SQLiteDatabase, path: Path, fn: Callable[[Connection], None], error: type[Exception]
) -> None:
    """Its own statement's error names the fault, and so does an error derived from it."""
    first, second, third = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, fn),
        partial(db.run_write_core, add, 12),
    )
    assert tells(first)
    assert type(second) is error
    assert third == 12
    assert await added(db) == [12]


def swallow(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        connection.execute(OR_ROLLBACK)


def fails_later(connection: Connection) -> None:
    swallow(connection)
    raise MissingError("of something else")


def looks_for_what_has_vanished(connection: Connection) -> None:
    swallow(connection)
    row = raw(connection).execute("SELECT 1 FROM items WHERE id = 10").fetchone()
    if row is None:
        raise MissingError("there is no item 10")


def takes_a_refusal_for_its_own(connection: Connection) -> None:
    swallow(connection)
    try:
        connection.execute(select(Item))
    except SQLAlchemyError as error:
        raise MissingError("no items") from error


@pytest.mark.parametrize(
    "fn", [fails_later, looks_for_what_has_vanished, takes_a_refusal_for_its_own]
)
async def test_an_error_that_came_after_it(
    db: SQLiteDatabase, path: Path, fn: Callable[[Connection], None]
) -> None:
    """A later error is misleading: the loss is raised, with the function's own error as cause."""
    first, second, third = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, fn),
        partial(db.run_write_core, add, 12),
    )
    assert tells(first)
    assert tells(second)
    assert isinstance(second.__cause__, MissingError)
    assert third == 12
    assert await added(db) == [12]


async def test_a_function_that_returns_after_it(db: SQLiteDatabase) -> None:
    """It gets the same error, as SQLAlchemy reports SQLite's errors."""
    with pytest.raises(OperationalError, match="UNIQUE constraint failed") as caught:
        await db.run_write_core(swallow)
    assert tells(caught.value)


async def test_what_is_refused_after_it(db: SQLiteDatabase) -> None:
    """The refusal is raised once and unchanged."""

    def go_on(connection: Connection) -> None:
        swallow(connection)
        add(connection, 10)

    with pytest.raises(OperationalError, match="rolled back this transaction") as caught:
        await db.run_write_core(go_on)
    assert tells(caught.value)
    assert caught.value.statement is not None  # SQLAlchemy's own


async def test_without_a_loss_every_error_is_its_own(db: SQLiteDatabase, path: Path) -> None:
    """This includes an error that was derived from one of SQLite's."""

    def duplicate(connection: Connection) -> None:
        try:
            add(connection, 1)
        except IntegrityError:
            raise MissingError from None

    first, second = await in_line(
        db, path, partial(db.run_write_core, add, 10), partial(db.run_write_core, duplicate)
    )
    assert first == 10
    assert type(second) is MissingError


# -- beneath SQLAlchemy --------------------------------------------------------------------------


def raw_swallow(connection: Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        raw(connection).execute(str(OR_ROLLBACK))


def raw_goes_on(connection: Connection) -> None:
    raw_swallow(connection)
    add(connection, 11)


def raw_fails(connection: Connection) -> None:
    raw_swallow(connection)
    raise MissingError


def raw_exits(connection: Connection) -> None:
    raw_swallow(connection)
    raise LeaveError


def raw_lets_out(connection: Connection) -> None:
    raw(connection).execute(str(OR_ROLLBACK))


@pytest.mark.parametrize("fn", [raw_swallow, raw_goes_on, raw_fails, raw_exits, raw_lets_out])
async def test_a_loss_on_the_drivers_connection(
    db: SQLiteDatabase, path: Path, fn: Callable[[Connection], None]
) -> None:
    """It is noticed, whatever the function's outcome: the others are not acknowledged, and no
    second half is kept."""
    first, second, third = await in_line(
        *(db, path),
        partial(db.run_write_core, add, 10),
        partial(db.run_write_core, fn),
        partial(db.run_write_core, add, 12),
    )
    assert tells(first)
    assert tells(second) or isinstance(second, LeaveError)
    assert third == 12
    assert await added(db) == [12]


async def test_a_loss_on_the_drivers_connection_alone(db: SQLiteDatabase) -> None:
    """No later part is committed separately."""
    for fn in (raw_swallow, raw_goes_on, raw_fails):
        with pytest.raises(OperationalError, match="by a statement on the driver's connection"):
            await db.run_write_core(fn)
    assert await added(db) == []


async def test_a_loss_while_the_session_flushes(db: SQLiteDatabase) -> None:
    """The flush at the end comes after the function has returned."""

    def leave(session: Session) -> None:
        session.add(Item(id=10))
        session.flush()
        session.connection().exec_driver_sql(
            "CREATE TEMP TRIGGER no BEFORE INSERT ON items WHEN NEW.id = 11 "
            "BEGIN SELECT RAISE(ROLLBACK, 'no more'); END"
        )
        session.add(Item(id=11))

    with pytest.raises(IntegrityError, match="no more"):
        await db.run_write(leave)
    assert await added(db) == []


def test_chains_of_errors() -> None:
    """The origin of an error is found along any chain."""
    loss, other = sqlite3.IntegrityError("loss"), sqlite3.IntegrityError("other")
    reported = IntegrityError("INSERT", None, loss)
    assert comes_from(loss, loss)
    assert comes_from(reported, loss)
    assert not comes_from(other, loss)
    assert not comes_from(other, None)
    cycle = MissingError()
    cycle.__context__ = ValueError()
    cycle.__context__.__context__ = cycle
    assert not comes_from(cycle, loss)
