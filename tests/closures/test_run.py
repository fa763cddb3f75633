"""run_read() and run_write(): what functions receive, and what their callers receive."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, ForeignKey, event, func, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.orm.exc import DetachedInstanceError

from sa_sqlite_pool import ForbiddenWriteError, SQLiteDatabase
from tests.closures.work import Sent, add, add_and_fail, added, ids, in_line
from tests.helpers import Item, create_items


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship()


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))


async def test_write_returns_what_is_committed(db: SQLiteDatabase) -> None:
    """A function with a Session is committed when the call returns its result."""

    def store(session: Session, key: int, *, amount: int) -> int:
        session.add(Item(id=key, amount=amount))
        session.flush()
        return session.scalar(select(func.sum(Item.amount))) or 0

    assert await db.run_write(store, 10, amount=7) == 7
    async with db.read() as session:
        assert (await session.get_one(Item, 10)).amount == 7


async def test_arguments_of_any_name(db: SQLiteDatabase) -> None:
    """Arguments are passed to the function, even those named fn or self."""

    def names(_: Connection, /, fn: str, **others: str) -> list[str]:
        return [fn, others["self"]]

    assert await db.run_read_core(names, fn="a", self="b") == ["a", "b"]


async def test_an_error_rolls_back_and_is_raised_as_it_is(db: SQLiteDatabase) -> None:
    """Nothing of a function that raises is kept, and the connection is clean for the next one."""
    with pytest.raises(ZeroDivisionError, match="after 10"):
        await db.run_write_core(add_and_fail, 10)
    assert await db.run_write_core(add, 11) == 11
    assert await added(db) == [11]


async def test_errors_of_the_database_are_sqlalchemys(db: SQLiteDatabase) -> None:
    """Statements that SQLite refuses raise the same errors as on any engine."""
    with pytest.raises(IntegrityError, match="UNIQUE"):
        await db.run_write_core(add, 1)


async def test_objects_are_detached_and_readable(db: SQLiteDatabase) -> None:
    """ORM objects can be used afterwards, and added to another session."""

    def first(session: Session) -> Item:
        item = session.get_one(Item, 1)
        item.amount = 5
        return item

    item = await db.run_write(first)
    assert item.amount == 5
    async with db.write() as session:
        session.add(item)
        item.amount = 6
    assert (await db.run_read(lambda s: s.get_one(Item, 1))).amount == 6


async def test_what_was_not_loaded_says_so(db: SQLiteDatabase) -> None:
    """A lazy load after the end is refused; attributes loaded inside are available."""
    await db.run_write(lambda s: Base.metadata.create_all(s.connection()))

    def store(session: Session) -> None:
        session.add(Author(id=1, name="a", books=[Book(id=1)]))

    def fetch(session: Session, *, load: bool) -> Author:
        author = session.get_one(Author, 1)
        if load:
            assert author.books
        return author

    await db.run_write(store)
    assert len((await db.run_read(fetch, load=True)).books) == 1
    with pytest.raises(DetachedInstanceError, match="books"):
        _ = (await db.run_read(fetch, load=False)).books


async def test_a_reader_cannot_write(db: SQLiteDatabase) -> None:
    """Forbidden writes: any statement that writes is refused inside run_read()."""
    for sql in ("UPDATE items SET amount = 9", "VACUUM", "BEGIN IMMEDIATE"):
        with pytest.raises(OperationalError, match="use a writer session") as caught:
            await db.run_read_core(Connection.execute, text(sql))
        assert isinstance(caught.value.orig, ForbiddenWriteError)


async def test_a_read_is_executed_once(db: SQLiteDatabase, sent: Sent) -> None:
    """It is repeated only if it was about to write."""
    await db.run_read_core(lambda c: c.execute(text("SELECT amount FROM items")).all())
    assert sent.count("SELECT amount FROM items") == 1


async def test_a_reader_explains_what_would_write(db: SQLiteDatabase) -> None:
    """EXPLAIN compiles a statement and changes nothing, and a write after it is refused."""

    def explain(connection: Connection) -> int:
        plan = connection.execute(text("EXPLAIN DELETE FROM items")).all()
        with pytest.raises(OperationalError, match="cannot change"):
            connection.execute(text("DELETE FROM items WHERE id = 1"))
        return len(plan)

    assert await db.run_read_core(explain) > 1


async def test_a_reader_sees_one_snapshot(db: SQLiteDatabase) -> None:
    """Isolated reads: later commits are not visible."""
    written = threading.Event()
    reading = threading.Event()

    def count_twice(connection: Connection) -> tuple[int, int]:
        first = len(ids(connection))
        reading.set()
        assert written.wait(30)
        return first, len(ids(connection))

    async def write() -> None:
        while not reading.is_set():
            await asyncio.sleep(0)
        await db.run_write_core(add, 10)
        written.set()

    counts, _ = await asyncio.gather(db.run_read_core(count_twice), write())
    assert counts == (3, 3)
    assert await added(db) == [10]


async def test_context_variables_are_the_callers(db: SQLiteDatabase) -> None:
    """Each function runs in its own caller's context."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    async def as_user(name: str) -> tuple[str, str]:
        user.set(name)
        return (
            await db.run_write_core(lambda _: user.get()),
            await db.run_read_core(lambda _: user.get()),
        )

    names = await asyncio.gather(*(as_user(name) for name in "abc"))
    assert names == [(name, name) for name in "abc"]


async def test_one_hop_a_transaction(db: SQLiteDatabase) -> None:
    """However many statements a function executes, the loop and the thread meet once."""

    def many(connection: Connection) -> None:
        for key in range(10, 30):
            add(connection, key)

    async with db.writer_engine.connect() as connection:
        raw = (await connection.get_raw_connection()).dbapi_connection
        assert raw is not None
        worker = raw.worker
    before = worker.hops
    await db.run_write_core(many)
    assert worker.hops == before + 1


async def test_one_alone_has_no_savepoint(db: SQLiteDatabase, sent: Sent) -> None:
    """An isolated write costs BEGIN, its statements, COMMIT, and one check of the schema."""
    await db.run_write_core(add, 10)
    await db.run_write_core(add, 11)
    assert [statement.split()[0] for statement in sent[-4:]] == [
        *("BEGIN", "PRAGMA", "INSERT", "COMMIT"),
    ]


async def test_events_of_the_engine(db: SQLiteDatabase) -> None:
    """Listeners on the engine receive each function's events like a transaction's, in order."""
    heard: list[str] = []
    engine = db.writer_engine.sync_engine
    for name in ("begin", "commit", "rollback"):
        event.listen(engine, name, lambda _, name=name: heard.append(name))
    event.listen(
        engine, "before_cursor_execute", lambda _c, _k, sql, *_: heard.append(sql.split()[0])
    )
    await db.run_write_core(add, 10)
    assert heard == ["begin", "INSERT", "commit"]
    heard.clear()
    with pytest.raises(ZeroDivisionError):
        await db.run_write_core(add_and_fail, 11)
    assert heard == ["begin", "INSERT", "rollback"]


async def test_after_commit_is_after_the_commit(db: SQLiteDatabase, path: Path, sent: Sent) -> None:
    """SQLAlchemy's after_commit follows SQLite's COMMIT, for all calls that share it."""
    commits_seen: list[int] = []

    def store(session: Session, key: int) -> None:
        session.add(Item(id=key))
        event.listen(
            session, "after_commit", lambda _: commits_seen.append(sent.starting("COMMIT"))
        )

    await in_line(db, path, lambda: db.run_write(store, 10), lambda: db.run_write(store, 11))
    assert commits_seen == [1, 1]


async def test_savepoints(db: SQLiteDatabase) -> None:
    """begin_nested() rolls back a part, at any position within a group."""

    def two(session: Session, key: int) -> None:
        session.add(Item(id=key))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Item(id=key + 1))
            session.flush()
            session.execute(insert(Item).values(id=key))

    await asyncio.gather(db.run_write(two, 10), db.run_write(two, 20))
    assert await added(db) == [10, 20]


async def test_rows_in_chunks(db: SQLiteDatabase) -> None:
    """yield_per() fetches rows as they are read, here too."""

    def sum_up(connection: Connection) -> int:
        rows = connection.execution_options(yield_per=2).execute(text("SELECT id FROM items"))
        return sum(row.id for row in rows)

    assert await db.run_read_core(sum_up) == 6
    assert await db.run_write_core(sum_up) == 6


async def test_what_the_engine_was_given_holds(path: Path) -> None:
    """Engine options (a JSON serializer, SQL functions) are in force inside functions."""

    def on_connect(connection: Any) -> None:
        connection.create_function("twice", 1, lambda value: 2 * value)

    async with SQLiteDatabase(path, on_connect=on_connect) as db:
        await create_items(db.writer_engine)
        double = text("SELECT twice(21)")
        assert await db.run_read_core(lambda c: c.execute(double).scalar_one()) == 42
        assert await db.run_write(lambda s: s.scalar(double)) == 42


async def test_a_function_of_the_connection(db: SQLiteDatabase) -> None:
    """The driver connection is the sqlite3 connection itself, in its own thread."""

    def define(connection: Connection) -> int:
        connection.connection.driver_connection.create_function("seven", 0, lambda: 7)  # type: ignore[union-attr]
        return int(connection.execute(text("SELECT seven()")).scalar_one())

    assert await db.run_write_core(define) == 7
