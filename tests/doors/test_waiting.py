"""Waiting for locks and connections that others hold, and failing clearly."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import exc, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import PoolTimeout, SQLitePool, TransactionLostError, WriterPool, WriteTimeout
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.execution.loop_budget import LoopBudget
from sa_sqlite_pool.files import site
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, Item, amounts, create_items, driver, turn_of, until_free
from tests.waiting import pauses


def outsider(path: Path) -> sqlite3.Connection:
    """Return a connection of a program that does not know this package."""
    return sqlite3.connect(path, isolation_level=None, timeout=0)


@pytest.mark.needs_thread
async def test_a_writer_outside_is_waited_for(path: Path, swap_in: AsyncEngine) -> None:
    """BEGIN IMMEDIATE is retried until the sqlite3 shell has committed; readers continue."""
    await create_items(swap_in)
    shell = outsider(path)
    shell.execute("BEGIN IMMEDIATE")
    async with swap_in.connect() as connection:
        raw = await driver(connection)
        before = raw.worker.hops
        task = asyncio.create_task(connection.execute(UPDATE_FIRST))
        while raw.worker.hops < before + 3:  # refused twice
            assert await amounts(swap_in) == [0, 0, 0]
        assert not task.done()
        shell.execute("UPDATE items SET amount = 10")
        shell.execute("COMMIT")
        shell.close()
        await task
        await connection.commit()
    assert await amounts(swap_in) == [11, 10, 10]


async def test_a_writer_outside_that_stays_is_named(path: Path, make_engine: MakeEngine) -> None:
    """Clear waits: the error names the process that holds the lock, if the system reports it."""
    engine = make_engine(SQLitePool, write_timeout=0.05)
    await create_items(engine)
    shell = outsider(path)
    shell.execute("BEGIN IMMEDIATE")
    async with engine.connect() as connection:
        with pytest.raises(WriteTimeout, match=r"waited 0\.05 s .*; another connection.* holds"):
            await connection.execute(UPDATE_FIRST)
        assert turn_of(path).holder is None
        shell.close()
        await connection.execute(UPDATE_FIRST)


async def test_a_stale_snapshot_is_not_waited_for(make_engine: MakeEngine, path: Path) -> None:
    """BUSY_SNAPSHOT cannot resolve itself, so SQLite's error is raised at once."""
    engine = make_engine(SQLitePool, write_timeout=3600)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        await connection.execute(select(Item.id))
        shell = outsider(path)
        shell.execute("UPDATE items SET amount = 10")
        shell.close()
        with pytest.raises(OperationalError, match="locked"):
            await connection.execute(UPDATE_FIRST)


async def test_opening_waits_for_a_lock(path: Path, swap_in: AsyncEngine) -> None:
    """Another program may hold the file exclusively for a moment, as the last to close it does."""
    await create_items(swap_in)
    await swap_in.dispose()
    shell = outsider(path)
    shell.execute("PRAGMA locking_mode = EXCLUSIVE")
    shell.execute("UPDATE items SET amount = 7")
    with pauses(shell.close):
        assert await amounts(swap_in) == [7, 7, 7]


async def test_a_raw_connection_given_back_with_a_transaction_frees_the_turn(
    path: Path, make_engine: MakeEngine
) -> None:
    """The turn is released even if the application has disabled SQLAlchemy's reset."""
    engine = make_engine(SQLitePool, pool_reset_on_return=None)
    await create_items(engine)
    raw = await engine.raw_connection()

    def use() -> None:
        raw.cursor().execute("UPDATE items SET amount = 9")
        raw.close()

    await greenlet_spawn(use)
    assert turn_of(path).holder is None
    assert await amounts(engine) == [0, 0, 0]


async def test_a_failed_return_replaces_the_connection(
    path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled during its return, it is closed with its transaction, and its slot is not lost."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0, pool_reset_on_return=None)
    await create_items(engine)
    raw = await engine.raw_connection()
    before = raw.dbapi_connection
    assert isinstance(before, SQLiteConnection)

    def cancelled(_: SQLiteConnection) -> None:
        raise asyncio.CancelledError

    def use() -> None:
        raw.cursor().execute("UPDATE items SET amount = 9")
        raw.close()

    with monkeypatch.context() as patched, pytest.raises(asyncio.CancelledError):
        patched.setattr(SQLiteConnection, "checked_in", cancelled)
        await greenlet_spawn(use)
    assert before.worker.closed
    await until_free(path)
    assert await amounts(engine) == [0, 0, 0]
    assert engine.pool.checkedin() == 1


async def test_the_pool_time_out_names_the_holders(make_engine: MakeEngine) -> None:
    """Clear waits: the error names the holders of connections, their lines, and their SQL."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0, pool_timeout=0.02)
    entered, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 'report'"))
            entered.set()
            await done.wait()

    task = asyncio.create_task(hold(), name="report-7")
    await entered.wait()
    holder = r"task 'report-7' \(now at test_waiting.py:\d+, last SQL: SELECT 'report'\)"
    with pytest.raises(PoolTimeout, match=holder):
        async with engine.connect():
            pass
    done.set()
    await task
    async with engine.connect():
        pass


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_letting_others_go_on_counts_for_the_time_out(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, poolclass: type
) -> None:
    """The error states how long the caller was prepared to wait."""
    engine = make_engine(poolclass, pool_size=1, max_overflow=0, pool_timeout=50)

    async def enter(_: LoopBudget) -> float:
        return 100.0

    async def use() -> None:
        async with engine.connect():
            pass

    async with engine.connect():
        monkeypatch.setattr(LoopBudget, "enter_nowait", lambda _: False)
        monkeypatch.setattr(LoopBudget, "enter", enter)
        with pytest.raises(exc.TimeoutError, match=r"waited 50\.00 s"):
            await asyncio.wait_for(asyncio.create_task(use()), 10)


async def test_connections_are_lent_in_order_of_arrival(make_engine: MakeEngine) -> None:
    """QueuePool lets a newcomer overtake; here it joins the line."""
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    order: list[int] = []

    async def use(number: int) -> None:
        async with engine.connect():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert order == list(range(20))


async def test_a_failed_connect_frees_its_place(path: Path, make_engine: MakeEngine) -> None:
    """The next task in line is served although the previous one could not open its connection."""
    failures = iter([True, False, False])

    def on_connect(_: sqlite3.Connection) -> None:
        if next(failures):
            raise sqlite3.OperationalError("no luck")

    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0, on_connect=on_connect)

    async def use() -> None:
        async with engine.connect():
            pass

    results = await asyncio.gather(use(), use(), return_exceptions=True)
    assert [type(result) for result in results] == [OperationalError, type(None)]


async def test_a_failed_statement_keeps_the_connection(swap_in: AsyncEngine) -> None:
    """The connection, its caches and temp tables survive an error."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        before = await driver(connection)
        await connection.execute(text("CREATE TEMP TABLE kept (id)"))
        await connection.commit()
        with pytest.raises(OperationalError):
            await connection.execute(text("SELECT nonsense"))
    async with swap_in.connect() as connection:
        assert await driver(connection) is before
        assert (await connection.execute(text("SELECT count(*) FROM kept"))).scalar_one() == 0


async def test_a_transaction_that_sqlite_rolled_back_is_not_half_committed(
    swap_in: AsyncEngine,
) -> None:
    """After OR ROLLBACK (or a full disk), further statements are refused until rollback()."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(text("INSERT INTO items (id, amount) VALUES (10, 0)"))
        with pytest.raises(IntegrityError):
            await connection.execute(
                text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 0)")
            )
        with pytest.raises(DBAPIError, match="call rollback") as caught:
            await connection.execute(text("INSERT INTO items (id, amount) VALUES (11, 0)"))
        assert isinstance(caught.value.orig, TransactionLostError)
        with pytest.raises(DBAPIError, match="call rollback"):
            await connection.commit()
        await connection.rollback()
        await connection.execute(text("INSERT INTO items (id, amount) VALUES (12, 0)"))
        await connection.commit()
    async with swap_in.connect() as connection:
        assert set(await connection.scalars(select(Item.id))) == {1, 2, 3, 12}


async def test_a_refused_commit_leaves_no_transaction(path: Path, make_engine: MakeEngine) -> None:
    """A deferred foreign key fails at COMMIT: rolled back, the turn free, the connection kept."""
    swap_in = make_engine(SQLitePool, pragmas={"foreign_keys": True})
    async with swap_in.begin() as connection:
        await connection.execute(text("CREATE TABLE parents (id INTEGER PRIMARY KEY)"))
        await connection.execute(
            text("CREATE TABLE children (p REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")
        )
    async with swap_in.connect() as connection:
        await connection.execute(text("INSERT INTO children VALUES (1)"))
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            await connection.commit()
        raw = await driver(connection)
        assert not raw.in_transaction
        assert turn_of(path).holder is None
        await connection.rollback()
        assert list(await connection.scalars(text("SELECT p FROM children"))) == []


@pytest.mark.needs_thread
async def test_a_cancelled_statement_is_stopped(path: Path, make_engine: MakeEngine) -> None:
    """The endless query ends with its task, and the next write finds turn and lock free."""
    running = asyncio.Event()
    loop = asyncio.get_running_loop()

    def here() -> int:
        loop.call_soon_threadsafe(running.set)
        return 1

    def on_connect(connection: sqlite3.Connection) -> None:
        connection.create_function("here", 0, here)

    engine = make_engine(SQLitePool, on_connect=on_connect)
    await create_items(engine)

    async def endless() -> None:
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
            await connection.execute(
                text(
                    "WITH RECURSIVE n(i) AS (SELECT here() UNION ALL SELECT i + 1 FROM n) "
                    "SELECT count(*) FROM n"
                )
            )

    task = asyncio.create_task(endless())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_free(path)
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    assert await amounts(engine) == [1, 0, 0]


async def test_a_commit_already_sent_is_awaited(path: Path, writer: AsyncEngine) -> None:
    """A cancellation during COMMIT is raised after it, and the commit stays.

    Task              | Thread
    COMMIT →          | (delayed by a previous job)
    cancel()          |
                      | COMMIT
    CancelledError    |
    """
    await create_items(writer)
    gate = threading.Event()

    async def write() -> None:
        async with writer.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            raw = await driver(connection)
            raw.worker.aiosqlite_connection._tx.put_job(gate.wait)  # type: ignore[attr-defined]
            await connection.commit()

    task = asyncio.create_task(write())
    turn = turn_of(path)
    while turn.holder is None or turn.holder.last_sql != "COMMIT":
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_free(path)
    assert await amounts(writer) == [1, 0, 0]


async def test_the_first_look_keeps_the_order(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread locates the file for the first task, a newcomer joins the line.

    First                 | Thread        | Newcomer
    waits in line         |               |
                          | has found it  |
                          |               | joins the line
    """
    engine = make_engine(SQLitePool, pool_size=1, max_overflow=0)
    wait, order = site.Site._wait_for_look, list[str]()

    async def use(name: str) -> None:
        async with engine.connect():
            order.append(name)

    async def wait_long(self: site.Site, seconds: float) -> None:
        await wait(self, seconds)
        newcomers.append(asyncio.create_task(use("newcomer")))
        for _ in range(20):
            await asyncio.sleep(0)

    newcomers: list[asyncio.Task[None]] = []
    monkeypatch.setattr(site.Site, "_wait_for_look", wait_long)
    monkeypatch.setattr(site, "find_at_hand", lambda path: None)  # as on a file server
    await use("first")
    await newcomers[0]
    assert order == ["first", "newcomer"]
