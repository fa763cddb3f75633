"""Functions that write run in reused greenlets."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from greenlet import getcurrent
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, MissingGreenlet
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from sa_sqlite_pool import ClosureError, SQLiteDatabase
from tests.closures.work import add, added, bump, in_line
from tests.helpers import UPDATE_FIRST, Item, create_items, until

VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default=None)


class Thing:
    """An object that can be referenced weakly."""


class Used(list[Any]):
    """The greenlets in which functions ran."""

    def note(self, _: Connection) -> None:
        self.append(getcurrent())

    def note_and_fail(self, connection: Connection) -> None:
        self.note(connection)
        raise ZeroDivisionError

    @property
    def different(self) -> int:
        return len(set(map(id, self)))


async def test_one_after_the_other_in_the_same(db: SQLiteDatabase) -> None:
    """This includes the next function after a failed one."""
    used = Used()
    for _ in range(3):
        await db.run_write_core(used.note)
        with pytest.raises(ZeroDivisionError):
            await db.run_write_core(used.note_and_fail)
    assert (len(used), used.different) == (6, 1)


async def test_those_that_share_a_commit_in_different_ones(db: SQLiteDatabase, path: Path) -> None:
    """They wait for the COMMIT in these greenlets, which later groups reuse."""
    used = Used()
    for _ in range(3):
        errors = await in_line(
            db,
            path,
            lambda: db.run_write_core(used.note),
            lambda: db.run_write_core(used.note_and_fail),
            lambda: db.run_write_core(used.note),
            lambda: db.run_write_core(used.note),
        )
        assert [type(error) for error in errors].count(ZeroDivisionError) == 1
    assert (len(used), used.different) == (12, 3)


@pytest.mark.parametrize("fails", [False, True])
async def test_context_variables_are_not_kept(db: SQLiteDatabase, fails: bool) -> None:
    """Nor is the function's result or error kept, once its caller has it."""

    def function(_: Connection, thing: Thing) -> Thing:
        assert VARIABLE.get() is thing
        VARIABLE.set([thing])
        if fails:
            raise ValueError(thing)
        return thing

    async def call() -> weakref.ref[Thing]:
        thing = Thing()
        VARIABLE.set(thing)
        try:
            assert await db.run_write_core(function, thing) is thing
        except ValueError:
            assert fails
        assert VARIABLE.get() is thing
        return weakref.ref(thing)

    reference = await asyncio.create_task(call())

    def is_gone() -> bool:
        gc.collect()
        return reference() is None

    await until(is_gone)  # the thread has left the transaction, and the group has ended


async def test_nothing_can_be_awaited(db: SQLiteDatabase) -> None:
    """Functions that write or read run outside the loop."""

    def wait(_: Connection) -> None:
        await_only(asyncio.sleep(0))

    for run in (db.run_write_core, db.run_read_core):
        with pytest.raises(MissingGreenlet):
            await run(wait)


AfterCommit = Callable[[Connection], object]


def raise_error(_: Connection) -> None:
    raise ZeroDivisionError("after the commit")


def begin_and_commit(connection: Connection) -> None:
    for _ in range(2):
        with connection.begin():
            pass


def begin_and_roll_back(connection: Connection) -> None:
    connection.begin().rollback()


def begin_and_execute(connection: Connection) -> None:
    with connection.begin():
        connection.execute(UPDATE_FIRST)


def wait(_: Connection) -> None:
    await_only(asyncio.sleep(0))


@pytest.mark.parametrize(
    ("after", "error"),
    [
        (raise_error, ZeroDivisionError),
        (begin_and_commit, None),
        (begin_and_roll_back, None),
        (begin_and_execute, ClosureError),
        (wait, MissingGreenlet),
    ],
)
async def test_what_listeners_do_after_the_commit(
    db: SQLiteDatabase, path: Path, after: AfterCommit, error: type[Exception] | None
) -> None:
    """Its caller gets the error, the commit stands, and the others are not affected."""

    def store(session: Session, key: int) -> int:
        connection = session.connection()
        session.add(Item(id=key))
        if key == 11:
            event.listen(session, "after_commit", lambda _: after(connection))
        return key

    results = await in_line(
        db, path, *(lambda key=key: db.run_write(store, key) for key in (10, 11, 12))
    )
    assert [results[0], results[2]] == [10, 12]
    if error is None:
        assert results[1] == 11
    else:
        assert isinstance(results[1], error)
    assert await added(db) == [10, 11, 12]
    assert await db.run_write_core(add, 13) == 13
    await db.run_write_core(bump)
    assert await db.run_read(lambda session: session.get_one(Item, 1).amount) == 1


async def test_what_listeners_do_after_a_commit_that_failed(db: SQLiteDatabase, path: Path) -> None:
    """They may begin and commit again; only their own call has failed."""
    make = text("CREATE TABLE children (item INTEGER REFERENCES items (id))")
    await db.run_write_core(Connection.execute, make)
    ended: list[str] = []

    def violate(session: Session) -> None:
        session.execute(text("PRAGMA defer_foreign_keys = ON"))
        session.execute(text("INSERT INTO children (item) VALUES (77)"))
        connection = session.connection()

        def begin_again(_: Session) -> None:
            ended.append("rolled back")
            begin_and_commit(connection)

        event.listen(session, "after_rollback", begin_again)

    first, violated, last = await in_line(
        *(db, path),
        lambda: db.run_write_core(add, 10),
        lambda: db.run_write(violate),
        lambda: db.run_write_core(add, 11),
    )
    assert (first, last) == (10, 11)
    assert isinstance(violated, IntegrityError)
    assert ended == ["rolled back"]
    assert await added(db) == [10, 11]


async def test_they_end_with_the_thread(path: Path) -> None:
    """Nothing of a closed database is kept."""
    used: list[weakref.ref[Any]] = []
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        note = lambda _: used.append(weakref.ref(getcurrent()))  # noqa: E731
        await in_line(db, path, *(lambda: db.run_write_core(note) for _ in range(3)))
        assert len(used) == 3
        assert None not in [reference() for reference in used]

    def gone() -> bool:
        gc.collect()
        return all(reference() is None for reference in used)

    await until(gone)
