"""What a function must not do, and objects used after its end: errors that name the way out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, ResourceClosedError
from sqlalchemy.orm import Session

from sa_sqlite_pool import AwaitableError, ClosureError, DatabaseClosedError, SQLiteDatabase
from tests.closures.work import add, added, ids
from tests.helpers import Item


async def assert_clean(db: SQLiteDatabase) -> None:
    """Assert that nothing was kept, and that the next call works."""
    assert await added(db) == []
    assert await db.run_write_core(add, 99) == 99


async def test_a_coroutine_function(db: SQLiteDatabase) -> None:
    """It is refused before it starts, at the call, with a TypeError."""

    async def later(_: Connection) -> None: ...

    for run in (db.run_write_core, db.run_read_core):
        with pytest.raises(TypeError, match=r"later is a coroutine function.*plain function"):
            await run(later)  # type: ignore[unused-coroutine]
    await assert_clean(db)


async def test_a_coroutine_as_result(db: SQLiteDatabase) -> None:
    """It is rolled back, and the coroutine, which never ran, is closed."""

    async def later() -> None: ...

    def begin(connection: Connection) -> Any:
        add(connection, 10)
        return later()

    with pytest.raises(AwaitableError, match="returned a coroutine"):
        await db.run_write_core(begin)
    with pytest.raises(AwaitableError, match="returned a coroutine"):
        await db.run_read_core(lambda _: later())  # type: ignore[unused-coroutine]
    await assert_clean(db)


async def test_a_function_with_a_short_name_alone(db: SQLiteDatabase) -> None:
    """Functions compiled by mypyc are examples; the error uses that name."""

    async def later() -> None: ...

    class Compiled:
        __name__ = "begin"

        def __call__(self, _: Connection) -> Any:
            return later()

    with pytest.raises(AwaitableError, match=r"^begin returned a coroutine"):
        await db.run_write_core(Compiled())


async def test_a_future_as_result(db: SQLiteDatabase) -> None:
    """Any awaitable is refused."""
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(AwaitableError, match=r"returned a .*Future"):
        await db.run_read_core(lambda _: future)


async def test_a_generator(db: SQLiteDatabase) -> None:
    """A generator function would begin after its transaction."""

    def rows(connection: Connection) -> Iterator[int]:
        yield add(connection, 10)

    with pytest.raises(AwaitableError, match="returned a generator"):
        await db.run_write_core(rows)
    await assert_clean(db)


@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: r.scalars(), lambda r: r.mappings()])
async def test_a_result(db: SQLiteDatabase, wrap: Callable[[Any], Any]) -> None:
    """Rows that have not been read are not a result."""

    def query(connection: Connection) -> Any:
        add(connection, 10)
        return wrap(connection.execute(text("SELECT id FROM items")))

    with pytest.raises(ClosureError, match=r"read them inside.*\.all\(\)"):
        await db.run_write_core(query)
    await assert_clean(db)


def _commit(session: Session) -> None:
    session.commit()


def _commit_connection(session: Session) -> None:
    session.connection().commit()


def _raw_commit(session: Session) -> None:
    session.connection().connection.commit()


def _commit_text(session: Session) -> None:
    session.execute(text("COMMIT"))


def _rollback_text(session: Session) -> None:
    session.execute(text("/* all */ rollback"))


def _begin_text(session: Session) -> None:
    session.execute(text("BEGIN"))


def _detach(session: Session) -> None:
    session.connection().detach()


@pytest.mark.parametrize(
    "end",
    [
        *(_commit, _commit_connection, _raw_commit, _commit_text),
        *(_rollback_text, _begin_text, _detach),
    ],
)
async def test_its_own_transaction(db: SQLiteDatabase, end: Callable[[Session], None]) -> None:
    """Ending or beginning the transaction is refused, even if the function hides the error."""

    def run(session: Session, *, hide: bool) -> None:
        session.add(Item(id=10))
        session.flush()
        try:
            end(session)
        except ClosureError:
            if not hide:
                raise
            raise ZeroDivisionError from None

    with pytest.raises(ClosureError, match="when the function returns; use begin_nested"):
        await db.run_write(run, hide=False)
    with pytest.raises(ZeroDivisionError):
        await db.run_write(run, hide=True)
    await assert_clean(db)


async def test_a_hidden_commit(db: SQLiteDatabase) -> None:
    """A function that hides the refusal of its commit() is not committed, either."""

    def run(connection: Connection) -> None:
        add(connection, 10)
        with pytest.raises(ClosureError):
            connection.connection.commit()

    with pytest.raises(ClosureError, match="when the function returns"):
        await db.run_write_core(run)
    await assert_clean(db)


async def test_a_second_begin(db: SQLiteDatabase) -> None:
    """SQLAlchemy itself refuses to begin twice."""
    with pytest.raises(InvalidRequestError, match="already"):
        await db.run_write(lambda session: session.begin())
    with pytest.raises(InvalidRequestError, match="already"):
        await db.run_write_core(lambda connection: connection.begin())


async def test_a_rollback(db: SQLiteDatabase) -> None:
    """A function that has rolled back can neither continue nor return as if it were committed."""

    def go_on(session: Session) -> None:
        session.add(Item(id=10))
        session.flush()
        session.rollback()
        session.add(Item(id=11))
        session.flush()

    def give_up(connection: Connection) -> None:
        add(connection, 10)
        connection.rollback()

    for run in (db.run_write(go_on), db.run_write_core(give_up)):
        with pytest.raises((ClosureError, InvalidRequestError), match=r"rolled back|closed trans"):
            await run
    await assert_clean(db)


async def test_an_invalidation(db: SQLiteDatabase) -> None:
    """A connection that SQLAlchemy considers broken is not committed, and stays in its pool."""

    def invalidate(connection: Connection) -> None:
        add(connection, 10)
        connection.invalidate()

    with pytest.raises(ClosureError, match="rolled back inside"):
        await db.run_write_core(invalidate)
    await assert_clean(db)


async def test_a_failed_flush(db: SQLiteDatabase) -> None:
    """The error of a flush is raised unchanged; if it is hidden, the call still fails."""

    def twice(session: Session, *, hide: bool) -> None:
        session.add(Item(id=1))
        try:
            session.flush()
        except IntegrityError:
            if not hide:
                raise

    with pytest.raises(IntegrityError, match="UNIQUE"):
        await db.run_write(twice, hide=False)
    with pytest.raises(ClosureError, match="rolled back inside"):
        await db.run_write(twice, hide=True)
    await assert_clean(db)


async def test_the_database_inside(db: SQLiteDatabase) -> None:
    """The facade cannot be used where it would wait for itself."""

    def call(_: Connection) -> None:
        _later = db.run_write_core(ids)

    def wait(_: Connection) -> None:
        async def write() -> None:
            async with db.write():
                pass

        asyncio.run(write())

    for fn in (call, wait):
        for run in (db.run_write_core, db.run_read_core):
            with pytest.raises(ClosureError, match="would wait for itself"):
                await run(fn)
    await assert_clean(db)


async def test_a_session_that_was_kept(db: SQLiteDatabase) -> None:
    """It is closed permanently: it neither reads nor begins again."""
    for run in (db.run_read, db.run_write):
        session = await run(lambda session: session)
        with pytest.raises(InvalidRequestError, match="closed"):
            session.get(Item, 1)


async def test_a_connection_that_was_kept(db: SQLiteDatabase) -> None:
    """It is closed permanently, too."""
    for run in (db.run_read_core, db.run_write_core):
        connection = await run(lambda connection: connection)
        with pytest.raises(ResourceClosedError):
            connection.execute(text("SELECT 1"))


async def test_a_driver_connection_that_was_kept(db: SQLiteDatabase) -> None:
    """It is closed beneath SQLAlchemy, too, and SQLite's connection is not affected."""
    for run in (db.run_read_core, db.run_write_core):
        raw: Any = await run(lambda connection: connection.connection)
        with pytest.raises(ClosureError, match="belongs to one thread"):
            raw.cursor().execute("SELECT 1")
        with pytest.raises(ClosureError, match="belongs to one thread"):
            _ = raw.driver_connection


def _fail(_: Connection) -> None:
    raise ZeroDivisionError


def _fail_at_commit(connection: Connection) -> None:
    connection.execute(text("PRAGMA defer_foreign_keys = ON"))
    connection.execute(text("INSERT INTO children (item) VALUES (77)"))


@pytest.mark.parametrize(
    ("function", "error"),
    [(ids, None), (_fail, ZeroDivisionError), (_fail_at_commit, IntegrityError)],
)
async def test_used_by_the_next_in_the_same_thread(
    db: SQLiteDatabase, function: Callable[[Connection], Any], error: type[Exception] | None
) -> None:
    """Objects kept by one function are useless to the next, however its own transaction ended."""
    children = text("CREATE TABLE children (item INTEGER REFERENCES items (id))")
    await db.run_write_core(Connection.execute, children)
    kept: list[Any] = []

    def keep(connection: Connection) -> None:
        kept.append(connection.connection)
        function(connection)

    with contextlib.nullcontext() if error is None else pytest.raises(error):
        await db.run_write_core(keep)

    def use(_: Connection) -> None:
        kept[0].cursor().execute("DELETE FROM items")

    with pytest.raises(ClosureError, match="after its function had returned"):
        await db.run_write_core(use)
    assert await db.run_read_core(ids) == [1, 2, 3]


async def test_a_stream_that_was_kept(db: SQLiteDatabase) -> None:
    """An open cursor is closed with its function, and holds no snapshot."""
    kept: list[Any] = []

    def open_stream(connection: Connection) -> None:
        streaming = connection.execution_options(yield_per=1)
        kept.append(streaming.execute(text("SELECT id FROM items")))
        kept[0].fetchone()

    for run in (db.run_read_core, db.run_write_core):
        kept.clear()
        await run(open_stream)
        with pytest.raises(ClosureError, match="belongs to one thread"):
            kept[0].fetchall()
    assert (await db.checkpoint("truncate")).outcome.value == "truncated"


async def test_another_thread_meanwhile(db: SQLiteDatabase) -> None:
    """A connection cannot be used by threads that a function starts."""
    caught: list[BaseException] = []

    def use(connection: Connection) -> None:
        try:
            connection.execute(text("SELECT 1"))
        except ClosureError as error:
            caught.append(error)

    def start(connection: Connection) -> None:
        thread = threading.Thread(target=use, args=(connection,))
        thread.start()
        thread.join()

    await db.run_write_core(start)
    assert "belongs to one thread" in str(caught[0])


async def test_before_open_and_after_close(db: SQLiteDatabase, tmp_path: Any) -> None:
    """The database's life cycle applies to functions, too."""
    with pytest.raises(DatabaseClosedError, match="is not open"):
        await SQLiteDatabase(tmp_path / "other.db").run_read(lambda _: None)
    await db.close()
    with pytest.raises(DatabaseClosedError, match="was closed"):
        await db.run_write(lambda _: None)
