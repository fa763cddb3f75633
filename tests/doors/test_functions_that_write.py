"""Functions that write: what they do for a statement is done in the turn, or undone."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool, statistics
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked, outcome, turn_taken
from tests.helpers import amounts, create_items, driver, turn_of, until, until_waiting

ADD = "UPDATE items SET amount = amount + 1 WHERE id = 1"


class Functions:
    """``adds()`` writes if ``add`` is set; ``tries()`` ignores SQLite's error."""

    def __init__(self) -> None:
        self.add, self.calls = True, 0

    def on_connect(self, connection: sqlite3.Connection) -> None:
        def adds() -> str:
            self.calls += 1
            if self.add:
                connection.execute(ADD)
            return "done"

        def tries() -> str:
            try:
                return adds()
            except sqlite3.Error:
                return "not done"

        connection.create_function("adds", 0, adds)
        connection.create_function("tries", 0, tries)


@pytest.fixture
def functions() -> Functions:
    return Functions()


CALLS = ["SELECT adds()", "SELECT tries()", "SELECT tries() FROM items LIMIT 1", "VALUES (tries())"]


@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
@pytest.mark.parametrize("sql", CALLS)
async def test_a_call_takes_the_turn(
    make_engine: MakeEngine, path: Path, functions: Functions, placement: str, sql: str
) -> None:
    """The first call acquires the turn, and so does a later one whose SQL is already compiled."""
    engine = make_engine(
        SQLitePool, placement=placement, on_connect=functions.on_connect, pool_size=1
    )
    await create_items(engine)
    for number in range(4):
        async with engine.connect() as connection:
            await connection.execute(text(ADD if number == 2 else "SELECT 1"))
            assert await outcome(connection, sql) == [("done",)]
            assert is_locked(path)
            assert turn_of(path).holder is not None
            await connection.rollback()
            assert not is_locked(path)
    assert await amounts(engine) == [0, 0, 0]


@pytest.mark.parametrize("sql", CALLS)
async def test_compiled_with_the_turn_and_called_without(
    make_engine: MakeEngine, path: Path, functions: Functions, sql: str
) -> None:
    """Without a new authorizer call, the write is undone and repeated in the turn."""
    engine = make_engine(SQLitePool, on_connect=functions.on_connect, pool_size=1)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO items (amount) SELECT length(adds())"))
        await connection.rollback()
        async with turn_taken(path) as asked:
            calling = asyncio.create_task(outcome(connection, sql))
            await until(lambda: turn_of(path).waiting == 1)
            assert not is_locked(path)
            assert asked() == 1
        assert await calling == [("done",)]
        await connection.rollback()
        assert await outcome(connection, "SELECT amount FROM items") == [(0,)] * 3


@pytest.mark.parametrize("inside", [False, True])
async def test_a_call_that_writes_nothing_takes_none(
    make_engine: MakeEngine, path: Path, functions: Functions, inside: bool
) -> None:
    """A statement that has not written counts as a read again; its transaction is unchanged."""
    engine = make_engine(SQLitePool, on_connect=functions.on_connect, pool_size=1)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT adds()"))
        await connection.rollback()
        functions.add = False
        await connection.execute(text("SELECT adds()"))  # in the turn, to find out
        await connection.rollback()
        async with turn_taken(path) as asked:
            if inside:
                await connection.execute(text("BEGIN"))
            for _ in range(3):
                assert await outcome(connection, "SELECT adds()") == [("done",)]
                assert (await driver(connection)).in_transaction is inside
            assert asked() == 0


async def test_in_a_transaction_that_has_not_written(
    make_engine: MakeEngine, functions: Functions
) -> None:
    """Only the statement itself was undone."""
    engine = make_engine(SQLitePool, on_connect=functions.on_connect, pool_size=1)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO items (amount) SELECT length(adds())"))
        await connection.rollback()
        await connection.execute(text("CREATE TEMP TABLE scratch (i)"))
        await connection.execute(text("INSERT INTO scratch VALUES (7)"))
        assert (await driver(connection)).in_transaction
        assert await outcome(connection, "SELECT adds()") == [("done",)]
        await connection.commit()
        assert await outcome(connection, "SELECT i FROM scratch") == [(7,)]
    assert await amounts(engine) == [1, 0, 0]


async def test_in_a_stream(make_engine: MakeEngine, functions: Functions) -> None:
    """The stream is reopened in the turn; if the function does not write, it is read to its end."""
    engine = make_engine(SQLitePool, on_connect=functions.on_connect, pool_size=1)
    await create_items(engine)
    async with engine.connect() as connection:
        stream = text("SELECT id, adds() FROM items")
        result = await connection.stream(stream, execution_options={"yield_per": 1})
        assert [row.id async for row in result] == [1, 2, 3]
        assert (await driver(connection)).executor.transaction.writing.begun
        await connection.rollback()
        functions.add = False
        for _ in range(2):
            result = await connection.stream(stream, execution_options={"yield_per": 1})
            assert [row.id async for row in result] == [1, 2, 3]
            await connection.rollback()
    assert await amounts(engine) == [0, 0, 0]


@pytest.mark.parametrize("function", ["adds()", "tries()"])
@pytest.mark.parametrize("warm", [False, True])
async def test_for_a_later_row_of_a_stream(
    make_engine: MakeEngine, functions: Functions, function: str, warm: bool
) -> None:
    """Rows already fetched cannot be read again in the turn; the error names the way out."""
    engine = make_engine(SQLitePool, on_connect=functions.on_connect, pool_size=1)
    await create_items(engine)
    sql = text(f"SELECT CASE WHEN id = 3 THEN {function} END FROM items")
    async with engine.connect() as connection:
        if warm:  # the function's own SQL is compiled already
            await connection.execute(text("SELECT adds()"))
            await connection.rollback()
        rows = await connection.stream(sql, execution_options={"yield_per": 1})
        with pytest.raises(OperationalError, match="does not have the write turn"):
            await rows.fetchall()
        await connection.rollback()
        await connection.execute(text("BEGIN IMMEDIATE"))
        rows = await connection.stream(sql, execution_options={"yield_per": 1})
        assert len(await rows.fetchall()) == 3
        await connection.commit()
        functions.add = False  # and a function that does not write is allowed
        rows = await connection.stream(sql, execution_options={"yield_per": 1})
        assert len(await rows.fetchall()) == 3
    assert await amounts(engine) == [1, 0, 0]


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_in_autocommit(
    make_engine: MakeEngine, path: Path, functions: Functions, placement: str, poolclass: type
) -> None:
    """The write is done once, in the turn, and refused if the file was replaced."""
    engine = make_engine(
        poolclass, placement=placement, on_connect=functions.on_connect, pool_size=1
    )
    await create_items(engine)
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        before = turn_of(path).statistics().waits_for_processes.at_once
        for _ in range(3):
            assert await outcome(connection, "SELECT tries()") == [("done",)]
            assert (await driver(connection)).executor.transaction.writing.claim is None
        assert turn_of(path).statistics().waits_for_processes.at_once == before + 3
        path.rename(path.with_name("old.db"))
        with pytest.raises(OperationalError, match="was deleted while it was open"):
            await connection.execute(text("SELECT adds()"))
        path.with_name("old.db").rename(path)
    assert await amounts(engine) == [3, 0, 0]


async def test_a_connection_that_is_given_up_while_a_call_waits(
    make_engine: MakeEngine, path: Path, functions: Functions
) -> None:
    """The error says so, and not that a function has tried to write."""
    engine = make_engine(SQLitePool, on_connect=functions.on_connect)
    await create_items(engine)
    async with engine.connect() as connection:
        raw = await driver(connection)
        async with turn_taken(path):
            calling = asyncio.create_task(connection.execute(text("SELECT adds()")))
            await until_waiting(1, turn_of(path))
            raw.give_up("it was closed", keep=False)
        with pytest.raises(DBAPIError, match="no active connection: it was closed"):
            await calling
    assert await amounts(engine) == [0, 0, 0]


async def test_a_function_with_a_transaction_of_its_own(make_engine: MakeEngine) -> None:
    """An example is SpatiaLite's InitSpatialMetaData(1), which returns 0 if it fails."""

    def on_connect(connection: sqlite3.Connection) -> None:
        def init() -> int:
            try:
                connection.execute("BEGIN")
                connection.execute("CREATE TABLE metadata (id)")
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                return 0
            return 1

        connection.create_function("init", 0, init)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text(ADD))
        assert await outcome(connection, "SELECT init()") == [(1,)]
        assert await outcome(connection, "SELECT count(*) FROM metadata") == [(0,)]


async def test_an_error_of_a_function(make_engine: MakeEngine, functions: Functions) -> None:
    """The error is raised unchanged, and no transaction stays open."""

    def on_connect(connection: sqlite3.Connection) -> None:
        def fails() -> None:
            raise LookupError

        connection.create_function("fails", 0, fails)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)
    async with engine.connect() as connection:
        for _ in range(3):
            with pytest.raises(OperationalError, match="user-defined function raised exception"):
                await connection.execute(text("SELECT fails()"))
            assert not (await driver(connection)).in_transaction


async def test_without_functions_a_read_is_nothing_but_the_read(make_engine: MakeEngine) -> None:
    """Neither BEGIN nor SAVEPOINT is sent with the read."""
    ran: list[str] = []
    engine = make_engine(SQLitePool, on_connect=lambda c: c.set_trace_callback(ran.append))
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        ran.clear()
        for _ in range(5):
            await connection.execute(text("SELECT 2"))
    assert ran == ["SELECT 2"] * 5


@pytest.mark.parametrize("poolclass", [SQLitePool, ReaderPool])
async def test_a_reader_is_told_each_time(
    make_engine: MakeEngine, functions: Functions, poolclass: type
) -> None:
    """The error is raised although the function ignores it, and even if its SQL is compiled."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass, on_connect=functions.on_connect, pool_size=1)
    engine = engine.execution_options(sqlite_role="reader")
    async with engine.connect() as connection:
        for sql in ["SELECT tries()"] * 4 + ["SELECT adds()"] * 4 + ["SELECT tries()"]:
            before = functions.calls
            assert "a reader of app.db cannot change" in await outcome(connection, sql)
            assert functions.calls <= before + 2
            await connection.rollback()
        functions.add = False
        assert await outcome(connection, "SELECT tries()") == [("done",)]
        assert await outcome(connection, "SELECT amount FROM items") == [(0,)] * 3


async def test_on_the_facade(path: Path, functions: Functions) -> None:
    """A session that reads raises an error; one that writes does write."""
    async with SQLiteDatabase(path, on_connect=functions.on_connect) as db:
        await create_items(db.writer_engine)
        async with db.read() as session:
            with pytest.raises(OperationalError, match="cannot change"):
                await session.execute(text("SELECT tries()"))
        async with db.write() as session:
            assert await session.scalar(text("SELECT tries()")) == "done"
        assert await amounts(db.reader_engine) == [1, 0, 0]


@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_a_commit_of_a_writer_that_has_only_called_one(
    make_engine: MakeEngine, path: Path, functions: Functions, placement: str
) -> None:
    """Its commit is like any other: it is counted, and refused if the file was replaced."""
    engine = make_engine(WriterPool, placement=placement, on_connect=functions.on_connect)
    await create_items(engine)
    before = statistics(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT adds()"))
        await connection.commit()
        await connection.execute(text("SELECT adds()"))
        await connection.rollback()
        functions.add = False
        await connection.execute(text("SELECT adds()"))
        await connection.commit()
        (done,) = (statistics(engine) - before).engines
        ended = done.transactions
        assert (ended.commits, ended.rollbacks, ended.reads) == (1, 1, 1)
        functions.add = True
        await connection.execute(text("SELECT adds()"))
        path.rename(path.with_name("old.db"))
        with pytest.raises(OperationalError, match="was deleted while it was open"):
            await connection.commit()


async def test_a_commit_of_one_waits_for_readers(
    make_engine: MakeEngine, path: Path, functions: Functions
) -> None:
    """Without WAL, its commit waits for readers like any other."""
    journal = {"journal_mode": "TRUNCATE"}
    engine = make_engine(WriterPool, pragmas=journal, on_connect=functions.on_connect)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT adds()"))
        with closing(sqlite3.connect(path)) as outsider:
            cursor = outsider.execute("SELECT * FROM items")
            cursor.fetchone()
            raw = await driver(connection)
            hops = raw.worker.hops
            committing = asyncio.create_task(connection.commit())
            await until(lambda: committing.done() or raw.worker.hops > hops + 2)
            cursor.close()
            await committing
    assert await amounts(engine) == [1, 0, 0]


@pytest.mark.parametrize("role", ["auto", "reader"])
async def test_a_table_named_like_one_of_a_virtual_table(
    make_engine: MakeEngine, path: Path, role: str
) -> None:
    """Such a table is the application's own, and written in the turn or not at all."""

    def on_connect(connection: sqlite3.Connection) -> None:
        def log() -> int:
            return connection.execute("INSERT INTO search_log VALUES (1)").rowcount

        connection.create_function("log", 0, log)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE VIRTUAL TABLE search USING fts5(body)"))
        await connection.execute(text("CREATE TABLE search_log (id)"))
    async with engine.execution_options(sqlite_role=role).connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (id)"))
        await connection.execute(text("INSERT INTO scratch VALUES (1)"))
        await connection.commit()
        found = await outcome(connection, "INSERT INTO scratch SELECT log()")
        assert (found is None) is (role == "auto")
        assert (turn_of(path).holder is not None) is (role == "auto")
        await connection.rollback()
        found = await outcome(connection, "SELECT log()")
        assert (found == [(1,)]) is (role == "auto")
        await connection.rollback()
        assert await outcome(connection, "SELECT count(*) FROM search_log") == [(0,)]


async def test_examining_runs_nothing(make_engine: MakeEngine, functions: Functions) -> None:
    """EXPLAIN compiles a statement without calling functions."""
    engine: AsyncEngine = make_engine(SQLitePool, on_connect=functions.on_connect)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (i)"))
        functions.calls = 0
        functions.add = False
        await connection.execute(text("INSERT INTO scratch SELECT adds()"))
        assert functions.calls == 1
