"""Code that works in a synchronous SQLAlchemy session works in a function, with equal outcome."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session

from sa_sqlite_pool import ClosureError, SQLiteDatabase
from sa_sqlite_pool.closures.api import Closures
from tests.closures.work import add, added
from tests.helpers import Base, Item

COUNT = select(func.count()).select_from(Item)


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Engine]:
    """Yield a synchronous engine with the same table, and transactions as SQLAlchemy recommends."""
    engine = create_engine(f"sqlite:///{tmp_path / 'stock.db'}")

    @event.listens_for(engine, "connect")
    def no_begin(dbapi_connection: Any, _: Any) -> None:
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Item), [{"id": key, "amount": 0} for key in (1, 2, 3)])
    yield engine
    engine.dispose()


def state(path: Path | str | None) -> list[Any]:
    """Return the entire content of a database."""
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        rows = connection.execute("SELECT * FROM items ORDER BY id").fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    return [rows, tables]


def get_or_create(session: Session) -> Any:
    try:
        with session.begin_nested():
            session.add(Item(id=1, amount=9))
    except IntegrityError:
        return session.get_one(Item, 1).amount


def nested_in_nested(session: Session) -> Any:
    with session.begin_nested():
        session.add(Item(id=10))
        inner = session.begin_nested()
        session.add(Item(id=11))
        session.flush()
        inner.rollback()
    return session.scalar(COUNT)


def nested_on_the_connection(session: Session) -> Any:
    connection = session.connection()
    with connection.begin_nested():
        connection.execute(insert(Item).values(id=10))
    with pytest.raises(ZeroDivisionError), connection.begin_nested():
        connection.execute(insert(Item).values(id=11))
        raise ZeroDivisionError
    return session.get_one(Item, 10).id


def savepoints_by_text(session: Session) -> Any:
    for sql in "SAVEPOINT a", "DELETE FROM items", "ROLLBACK TO a", "RELEASE a":
        session.execute(text(sql))
    return session.scalar(COUNT)


def session_in_the_session(session: Session) -> Any:
    for key, mode in (10, "create_savepoint"), (11, "conditional_savepoint"):
        with Session(session.connection(), join_transaction_mode=mode) as inner:  # type: ignore[arg-type]
            inner.add(Item(id=key))
            inner.commit()
    return session.scalar(COUNT)


def session_that_rolls_back(session: Session) -> Any:
    with Session(session.connection(), join_transaction_mode="create_savepoint") as inner:
        inner.add(Item(id=10))
        inner.flush()
        inner.rollback()
    return session.get(Item, 10)


def streams(session: Session) -> Any:
    rows = session.scalars(select(Item).execution_options(yield_per=2))
    first = next(rows).id
    session.add(Item(id=10))
    session.flush()
    partitions = session.execute(select(Item.id).execution_options(yield_per=2)).partitions()
    return first, [len(part) for part in partitions], session.get_one(Item, 10).id


def questions(session: Session) -> Any:
    bind = session.get_bind()
    return (
        bind.dialect.name,
        bind.engine.dialect.name,
        sorted(inspect(bind).get_table_names()),
        sorted(inspect(session.connection()).get_table_names()),
        session.in_transaction(),
        session.in_nested_transaction(),
        session.connection().get_isolation_level(),
        session.connection().in_transaction(),
        session.connection().connection.is_valid,
    )


def options(session: Session) -> Any:
    connection = session.connection(execution_options={"yield_per": 1})
    found = connection.execute(select(Item.id), execution_options={"stream_results": True})
    populated = session.execute(select(Item), execution_options={"populate_existing": True})
    return found.all(), len(populated.all()), connection.get_execution_options()["yield_per"]


def bulk(session: Session) -> Any:
    session.add_all([Item(id=key) for key in range(10, 40)])
    session.flush()
    returned = session.scalars(insert(Item).returning(Item.id), [{"id": 50}, {"id": 51}]).all()
    changed = session.query(Item).filter(Item.id > 20).update({"amount": 5})
    many = session.connection().exec_driver_sql("INSERT INTO items VALUES (?, 0)", [(60,), (61,)])
    return returned, changed, many.rowcount


def events(session: Session) -> Any:
    heard: list[str] = []
    for name in "before_flush", "after_flush", "before_commit", "after_begin":
        event.listen(session, name, lambda *_, name=name: heard.append(name))
    session.add(Item(id=10))
    with session.begin_nested():
        session.add(Item(id=11))
    return heard


def schema(session: Session) -> Any:
    Base.metadata.create_all(session.connection())
    session.execute(text("CREATE TABLE others (id)"))
    session.execute(text("ALTER TABLE others ADD COLUMN n"))
    return session.scalar(text("PRAGMA foreign_keys"))


def driver_functions(session: Session) -> Any:
    connection = session.connection().connection
    assert connection.dbapi_connection is not None
    connection.dbapi_connection.create_function("one", 0, lambda: 1)
    connection.create_function("two", 0, lambda: 2)
    connection.driver_connection.create_function("three", 0, lambda: 3)  # type: ignore[union-attr]
    cursor = connection.cursor()
    cursor.execute("SELECT one(), two(), three()")
    return cursor.fetchone()


def states(session: Session) -> Any:
    item = session.get_one(Item, 1)
    session.expire(item)
    session.refresh(item)
    merged = session.merge(Item(id=2, amount=7))
    session.expunge(item)
    session.delete(session.get_one(Item, 3))
    return item in session, merged.amount, session.dirty == {merged}


def only_asks_its_bind(session: Session) -> Any:
    return session.get_bind().execute(COUNT).scalar()  # type: ignore[union-attr]


WORKS = [
    *(get_or_create, nested_in_nested, nested_on_the_connection, savepoints_by_text),
    *(session_in_the_session, session_that_rolls_back, streams, questions, options, bulk),
    *(events, schema, driver_functions, states),
]


@pytest.mark.parametrize("fn", WORKS, ids=lambda fn: fn.__name__)
async def test_works(
    db: SQLiteDatabase, path: Path, stock: Engine, fn: Callable[[Session], Any]
) -> None:
    """The result is equal, and so are the rows and tables afterwards."""
    with Session(stock, expire_on_commit=False) as session, session.begin():
        expected = fn(session)
    assert await db.run_write(fn) == expected
    assert state(path) == state(stock.url.database)


async def test_what_passes_the_session_by(db: SQLiteDatabase) -> None:
    """It is in the same transaction, and committed with it."""
    assert await db.run_write(only_asks_its_bind) == 3
    assert await db.run_read(only_asks_its_bind) == 3

    def writes(session: Session) -> None:
        bind: Any = session.get_bind()
        bind.execute(insert(Item).values(id=10))
        bind.connection.driver_connection.execute("INSERT INTO items VALUES (11, 0)")

    await db.run_write(writes)
    assert await added(db) == [10, 11]


# -- operations that are refused by name ---------------------------------------------------------


def autocommit(session: Session) -> None:
    session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})


def autocommit_of_the_driver(session: Session) -> None:
    driver: Any = session.connection().connection.dbapi_connection
    driver.isolation_level = None


def closes(session: Session) -> None:
    session.add(Item(id=10))
    session.flush()
    session.close()


def resets(session: Session) -> None:
    session.add(Item(id=10))
    session.flush()
    session.reset()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (autocommit, "isolation_level may not be altered"),
        (autocommit_of_the_driver, r"isolation_level='AUTOCOMMIT': run_write\(\).* begin the tran"),
        (closes, "rolled back inside"),
        (resets, "rolled back inside"),
    ],
)
async def test_is_refused(db: SQLiteDatabase, fn: Callable[[Session], None], message: str) -> None:
    """An operation that would end the transaction, or have none, is refused."""
    with pytest.raises(InvalidRequestError, match=message):
        await db.run_write(fn)
    assert await added(db) == []


# -- listeners of the engine ---------------------------------------------------------------------


def ping(connection: Connection, *_: Any) -> None:
    connection.scalar(select(1))


def do_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def do_begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def ask_at_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
    connection.exec_driver_sql("SELECT count(*) FROM items").fetchall()


def no_begin(dbapi_connection: Any, _: Any) -> None:
    dbapi_connection.isolation_level = None


@pytest.mark.parametrize(
    "listeners",
    [
        [("engine_connect", ping)],
        [("begin", do_begin)],
        [("begin", do_begin_immediate)],
        [("begin", ask_at_begin)],
        [("connect", no_begin), ("begin", do_begin)],
        [("engine_connect", ping), ("begin", do_begin)],
    ],
)
async def test_listeners_that_begin(
    db: SQLiteDatabase, listeners: list[tuple[str, Callable[..., None]]]
) -> None:
    """SQLAlchemy's recipes query or begin before the function; it is committed nevertheless,
    a failing one is not, and the driver's connection is unchanged."""
    for name, listener in listeners:
        event.listen(db.writer_engine.sync_engine, name, listener)
        if listener is not do_begin_immediate:
            event.listen(db.reader_engine.sync_engine, name, listener)
    await db.writer_engine.dispose()

    def fail(session: Session) -> None:
        session.add(Item(id=11))
        session.flush()
        raise ZeroDivisionError

    for _ in range(2):
        assert await db.run_write(lambda session: session.merge(Item(id=10)).id) == 10
        assert await db.run_write_core(lambda connection: add(connection, 12)) == 12
        with pytest.raises(ZeroDivisionError):
            await db.run_write(fail)
        assert await db.run_read(lambda session: session.get_one(Item, 10).id) == 10
        assert await added(db) == [10, 12]
        await db.run_write(lambda session: session.delete(session.get_one(Item, 12)))
        assert await added(db) == [10]


async def test_an_engine_in_autocommit(path: Path, db: SQLiteDatabase) -> None:
    """A function has its transaction, whatever the level of the engine's connections."""
    for engine_options in (
        {"isolation_level": "AUTOCOMMIT"},
        {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
    ):
        async with SQLiteDatabase(path, **engine_options) as other:

            def fail(session: Session) -> None:
                session.add(Item(id=11))
                session.flush()
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await other.run_write(fail)
            assert await other.run_write(lambda session: session.merge(Item(id=10)).id) == 10
            assert await added(other) == [10]


# -- the session ---------------------------------------------------------------------------------


class OwnSession(Session):
    """A session class of the application."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.info["own"] = True


async def test_a_session_class_of_the_application(db: SQLiteDatabase) -> None:
    """``Closures`` creates its sessions from it."""
    closures = Closures(db._closures._writes, db.reader_engine, "app.db", session_class=OwnSession)

    def look(session: Session) -> Any:
        session.add(Item(id=10))
        return type(session), session.info["own"]

    assert await closures.write(closures.with_session, look, look) == (OwnSession, True)
    assert await added(db) == [10]


class SilentSession(Session):
    """A session that commits nothing."""

    def begin(self, nested: bool = False) -> Any:
        return contextlib.nullcontext()


@pytest.mark.parametrize("beneath", [False, True])
async def test_a_session_that_does_not_commit(db: SQLiteDatabase, *, beneath: bool) -> None:
    """Its pending work is neither acknowledged nor kept."""
    closures = Closures(db._closures._writes, db.reader_engine, "app.db", SilentSession)

    def write(session: Session) -> None:
        connection: Any = session.connection()
        if beneath:
            connection.connection.driver_connection.execute("INSERT INTO items VALUES (10, 0)")
        else:
            connection.execute(insert(Item).values(id=10))

    with pytest.raises(ClosureError, match="was not committed, and none of its writes are kept"):
        await closures.write(closures.with_session, write, write)
    assert await added(db) == []
    assert await closures.write(closures.with_session, only_asks_its_bind, write) == 3
