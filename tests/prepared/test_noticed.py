"""Prepared reads respect listeners, logs, and changes of the schema, options or connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import Pool

from sa_sqlite_pool import ConfigurationError, SQLiteDatabase, StatementTimeout
from sa_sqlite_pool.prepared.read import PreparedRead
from tests.helpers import ENDLESS, Item, create_items, driver
from tests.prepared.conftest import AT_ONCE, BY_SQLALCHEMY, COUNT_TO, IN_LINE, Ways


@pytest.fixture
async def by_id(db: SQLiteDatabase, ways: Ways) -> PreparedRead:
    """Return a prepared read that is read at once from now on."""
    read = db.prepare(select(Item.id, Item.amount).where(Item.id == bindparam("id")))
    for _ in range(3):
        await read.one(id=1)
    _ = ways.taken
    assert (await read.one(id=1)).id == 1
    assert ways.taken == AT_ONCE
    return read


EVENTS = [
    "after_cursor_execute",
    "after_execute",
    "before_cursor_execute",
    "before_execute",
    "begin",
    "do_execute",
    "engine_connect",
    "rollback",
]


@pytest.mark.parametrize("name", EVENTS)
async def test_listeners_of_the_engine(
    db: SQLiteDatabase, by_id: PreparedRead, ways: Ways, name: str
) -> None:
    """A listener, added at any time, is called for each call, which runs by SQLAlchemy."""
    heard: list[str] = []

    def listener(*_: Any) -> None:
        heard.append(name)

    event.listen(db.reader_engine.sync_engine, name, listener)
    for number in (1, 2):
        assert (await by_id.one(id=number)).id == number
        assert ways.taken == BY_SQLALCHEMY
        assert heard == [name] * number


@pytest.mark.parametrize("name", ["checkout", "checkin", "reset"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["of the pool", "of all pools"])
async def test_listeners_of_pools(
    db: SQLiteDatabase, by_id: PreparedRead, ways: Ways, name: str, everywhere: bool
) -> None:
    """They are called for each call while they listen; later calls are read at once again."""
    heard: list[str] = []

    def listener(*_: Any) -> None:
        heard.append(name)

    target = Pool if everywhere else db.reader_engine.sync_engine.pool
    event.listen(target, name, listener)
    try:
        await by_id.one(id=1)
        assert (ways.taken, heard) == (BY_SQLALCHEMY, [name])
    finally:
        event.remove(target, name, listener)
    await by_id.one(id=1)
    assert ways.taken == BY_SQLALCHEMY
    await by_id.one(id=1)
    assert ways.taken == AT_ONCE


async def test_a_listener_that_changes_the_statement(
    db: SQLiteDatabase, by_id: PreparedRead
) -> None:
    """The statement that it returns is executed, with its own columns."""

    @event.listens_for(db.reader_engine.sync_engine, "before_execute", retval=True)
    def another(_connection: Any, _clause: Any, multi: Any, single: Any, _options: Any) -> Any:
        return select(Item.amount.label("other")), multi, single

    assert (await by_id.first(id=1))._mapping == {"other": 0}  # type: ignore[union-attr]


async def test_errors_are_told_to_listeners(db: SQLiteDatabase, by_id: PreparedRead) -> None:
    """``handle_error`` may replace an error, as usual."""
    heard: list[Any] = []

    @event.listens_for(db.reader_engine.sync_engine, "handle_error")
    def note(context: Any) -> None:
        heard.append(context.original_exception)

    async with db.writer_engine.begin() as connection:
        await connection.execute(text("DROP TABLE items"))
    with pytest.raises(OperationalError, match="no such table") as raised:
        await by_id.one(id=1)
    assert heard == [raised.value.orig]
    assert (raised.value.statement or "").startswith("SELECT items.id")
    assert raised.value.params == (1,)


@pytest.mark.usefixtures("placed")
async def test_time_outs_are_told_to_listeners(db: SQLiteDatabase) -> None:
    """A call that may raise runs by SQLAlchemy if a listener is registered for errors."""
    heard: list[Any] = []
    read = db.prepare(COUNT_TO.execution_options(statement_timeout=0.05))
    for _ in range(3):
        await read.scalar(rows=10)
    event.listen(
        db.reader_engine.sync_engine,
        "handle_error",
        lambda context: heard.append(context.original_exception),
    )
    with pytest.raises(StatementTimeout) as raised:
        await read.scalar(rows=10**12)
    assert heard == [raised.value]


@pytest.mark.parametrize("logger", ["sqlalchemy.engine.Engine", "sqlalchemy.pool.impl.ReaderPool"])
async def test_logs(
    by_id: PreparedRead, ways: Ways, caplog: pytest.LogCaptureFixture, logger: str
) -> None:
    """If SQLAlchemy's logs are switched on, they contain the call."""
    with caplog.at_level(logging.DEBUG, logger=logger):
        await by_id.one(id=1)
        assert ways.taken == BY_SQLALCHEMY
    assert caplog.records


async def test_echo(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``echo=True`` logs each statement."""
    # SQLAlchemy adds a handler for standard output only if there is none.
    monkeypatch.setattr(logging.getLogger("sqlalchemy"), "handlers", [caplog.handler])
    async with SQLiteDatabase(path, echo=True) as db:
        read = db.prepare(text("SELECT 41 + 1"))
        for _ in range(3):
            await read.scalar()
    shown = [record for record in caplog.records if record.getMessage() == "SELECT 41 + 1"]
    assert len(set(map(id, shown))) == 3


# -- changes of the schema -------------------------------------------------------------------------

Change = Callable[[str], Any]


@pytest.fixture
def change(db: SQLiteDatabase) -> Change:
    async def execute(sql: str) -> None:
        async with db.writer_engine.begin() as connection:
            await connection.execute(text(sql))

    return execute


@pytest.mark.parametrize("method", ["one", "first", "all", "mappings"])
async def test_columns_that_were_added(db: SQLiteDatabase, change: Change, method: str) -> None:
    """``SELECT *`` returns them, with their names, as SQLAlchemy's own execution does."""
    read = db.prepare(text("SELECT * FROM items WHERE id = 1"))
    for names, then in (
        (["id", "amount"], "ALTER TABLE items ADD COLUMN more DEFAULT 7"),
        (["id", "amount", "more"], "ALTER TABLE items RENAME COLUMN amount TO number"),
        (["id", "number", "more"], "DROP TABLE items"),
    ):
        for _ in range(4):
            found = await getattr(read, method)()
            row = found[0] if method in {"all", "mappings"} else found
            assert list(row if method == "mappings" else row._fields) == names
        await change(then)


async def test_a_table_that_is_made_anew(by_id: PreparedRead, change: Change, ways: Ways) -> None:
    """The next call reads the new table, as fast as before."""
    await change("ALTER TABLE items RENAME TO old")
    await change("CREATE TABLE items (amount INTEGER, id INTEGER)")
    await change("INSERT INTO items VALUES (9, 1)")
    assert (await by_id.one(id=1)).amount == 9
    _ = ways.taken
    assert (await by_id.one(id=1)).amount == 9
    assert ways.taken == AT_ONCE


# -- options, and connections that have changed ----------------------------------------------------


async def test_options_of_the_engine(db: SQLiteDatabase, by_id: PreparedRead, ways: Ways) -> None:
    """Options that only SQLAlchemy understands are left to it, from the next call on."""
    db.reader_engine.sync_engine.update_execution_options(logging_token="mine")
    await by_id.one(id=1)
    assert ways.taken == BY_SQLALCHEMY


async def test_options_of_the_statement(db: SQLiteDatabase, ways: Ways) -> None:
    """The same applies to the statement's own options: a table of another name is read."""
    renamed = select(Item.__table__.c.id).execution_options(schema_translate_map={None: "main"})
    read = db.prepare(renamed)
    for _ in range(3):
        assert list(await read.scalars()) == [1, 2, 3]
    assert ways.taken == (0, 0, 3)


async def test_a_limit_of_time(db: SQLiteDatabase, ways: Ways) -> None:
    """``statement_timeout`` of the statement stops it, whichever way it runs."""
    read = db.prepare(ENDLESS.execution_options(statement_timeout=0.01))
    with pytest.raises(StatementTimeout, match=r"0\.01"):
        await read.scalar()
    quick = db.prepare(select(Item.id).execution_options(statement_timeout=5))
    for _ in range(3):
        await quick.all()
    assert ways.taken[0] > 0
    wrong = db.prepare(select(Item.id).execution_options(statement_timeout=-1))
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="statement_timeout"):
            await wrong.all()


async def test_a_connection_that_is_to_be_replaced(
    db: SQLiteDatabase, by_id: PreparedRead, ways: Ways
) -> None:
    """After invalidate(soft=True), the next call opens another connection, as SQLAlchemy does."""
    async with db.reader_engine.connect() as connection:
        before = (await driver(connection)).worker
        raw: Any = await connection.get_raw_connection()
        raw._connection_record.invalidate(soft=True)
    _ = ways.taken
    assert (await by_id.one(id=1)).id == 1
    assert ways.taken == (0, 1, 0)
    async with db.reader_engine.connect() as connection:
        assert (await driver(connection)).worker is not before


@pytest.mark.parametrize("option", [{"pool_pre_ping": True}, {"pool_recycle": 3600}])
async def test_pools_that_look_at_connections_first(
    path: Path, ways: Ways, option: dict[str, Any]
) -> None:
    """SQLAlchemy's checkout performs the check."""
    async with SQLiteDatabase(path, readers=1, **option) as db:
        await create_items(db.writer_engine)
        read = db.prepare(select(Item.id))
        for _ in range(4):
            assert len(await read.all()) == 3
        assert ways.taken == (0, 3, 1)


async def test_a_connection_that_is_not_set_up_yet(
    db: SQLiteDatabase, by_id: PreparedRead, ways: Ways
) -> None:
    """A checkout that failed at its end left it unfinished; the next one completes the set-up."""
    async with db.reader_engine.connect() as connection:
        executor = (await driver(connection)).executor
    executor.ready = False
    _ = ways.taken
    assert (await by_id.one(id=1)).id == 1
    assert ways.taken == IN_LINE
    assert executor.ready


async def test_a_busy_timeout_that_a_function_has_set(
    db: SQLiteDatabase, by_id: PreparedRead, ways: Ways
) -> None:
    """The loop does not wait in SQLite: the next call runs in line, which switches it off."""
    await db.run_read_core(
        lambda connection: connection.execute(text("PRAGMA busy_timeout = 60000")).all()
    )
    for expected in (IN_LINE, AT_ONCE):
        _ = ways.taken
        assert (await by_id.one(id=1)).id == 1
        assert ways.taken == expected


async def test_a_raw_connection_that_was_lent(
    db: SQLiteDatabase, by_id: PreparedRead, ways: Ways
) -> None:
    """While a task has it, calls wait for it; afterwards they see the changes made on it."""
    async with db.reader_engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.create_function("twice", 1, lambda value: 2 * value)
    read = db.prepare(text("SELECT twice(21)"))
    for _ in range(3):
        assert await read.scalar() == 42
    _ = ways.taken
    assert await read.scalar() == 42
    assert ways.taken == (0, 1, 0)  # a function of the application never runs on the loop
    assert (await by_id.one(id=1)).id == 1
