"""A migration that is stopped half way, and other tasks that continue during one."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLiteDatabase, WriteTimeout
from sa_sqlite_pool.driver.adapter import SQLiteConnection
from sa_sqlite_pool.migrations import current, transaction, upgrade
from sa_sqlite_pool.migrations.own_loop import run_aside
from tests.helpers import SleepingFunction, until, until_free
from tests.migrations.scripts import REBUILD, Scripts, finish, hooks, wait_inside

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def enforced(db: SQLiteDatabase) -> None:
    """Check that the writer works, and refuses an orphan."""
    async with db.write() as session:
        await session.execute(text("UPDATE parents SET n = 1"))
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        async with db.write() as session:
            await session.execute(text("INSERT INTO children VALUES (-1, -1)"))


# -- other tasks --------------------------------------------------------------------------------


async def test_readers_and_the_loop_go_on_during_a_long_statement(scripts: Scripts) -> None:
    """The statement stays in SQLite until the test lets it end."""
    sleeping = SleepingFunction()
    scripts.add("op.execute('INSERT INTO parents VALUES (1, sleep())')")
    async with SQLiteDatabase(scripts.database, on_connect=sleeping.on_connect) as db:
        await upgrade(db, "0001", config=scripts.ini)
        migrating = asyncio.create_task(upgrade(db, "head", config=scripts.ini))
        await until(sleeping.inside.is_set)
        await reads_ten_times(db)
        assert not migrating.done()
        sleeping.leave.set()
        await migrating
        assert await current(db, config=scripts.ini) == ("0002",)


async def test_readers_and_the_loop_go_on_while_a_revision_computes(
    scripts: Scripts, db: SQLiteDatabase
) -> None:
    """Its Python code does not run on the application's loop. Waiters learn which task migrates."""
    inside, leave = threading.Event(), threading.Event()
    hooks["compute"] = lambda: wait_inside(inside, leave)
    scripts.add("hooks['compute']()")
    await upgrade(db, "0001", config=scripts.ini)
    migrating = asyncio.create_task(upgrade(db, "head", config=scripts.ini), name="migrating")
    await until(inside.is_set)
    await reads_ten_times(db)
    with pytest.raises(WriteTimeout, match=r"task 'migrating'.* in line"):
        await upgrade(db, "head", config=scripts.ini, timeout=0.01)
    leave.set()
    await migrating


async def reads_ten_times(db: SQLiteDatabase) -> None:
    for _ in range(10):
        async with db.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM parents")) == 0


async def test_the_callers_context_reaches_the_revisions(
    scripts: Scripts, db: SQLiteDatabase
) -> None:
    """Context variables, for example of a logging set-up, are passed on."""
    tenant = contextvars.ContextVar[str]("tenant")
    seen: list[str] = []
    hooks["look"] = lambda: seen.append(tenant.get())
    scripts.add("hooks['look']()")
    tenant.set("acme")
    await upgrade(db, "head", config=scripts.ini)
    assert seen == ["acme"]


# -- cancellation -------------------------------------------------------------------------------


async def cancelled_at(db: SQLiteDatabase, scripts: Scripts, number: int) -> str | None:
    """Cancel an upgrade at its ``number``-th call of SQLite; return that call, or None if over."""
    loop, called = asyncio.get_running_loop(), list[str]()

    def after_laps(count: int, function: Callable[[], None]) -> None:
        if count:
            loop.call_soon(after_laps, count - 1, function)
        else:
            function()

    migrating = asyncio.create_task(upgrade(db, "head", config=scripts.ini))

    def note(statement: str) -> None:
        called.append(statement)
        if len(called) == number:
            arrived = threading.Event()
            loop.call_soon_threadsafe(migrating.cancel)
            loop.call_soon_threadsafe(after_laps, 20, arrived.set)
            assert arrived.wait(10)

    def on_execute(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        note(statement)

    def on_commit(_conn: object) -> None:
        note("COMMIT")

    original = transaction._below

    def below(raw: SQLiteConnection, sql: str) -> object:
        note(sql)
        return original(raw, sql)

    engine = db.writer_engine.sync_engine
    event.listen(engine, "before_cursor_execute", on_execute)
    event.listen(engine, "commit", on_commit)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transaction, "_below", below)
            await asyncio.wait([migrating])
    finally:
        event.remove(engine, "before_cursor_execute", on_execute)
        event.remove(engine, "commit", on_commit)
    if len(called) < number:
        await migrating
        return None
    with pytest.raises(asyncio.CancelledError):
        await migrating
    return called[-1]


async def test_a_cancellation_at_every_statement(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """The database is as before or as after, the turn is free, and foreign keys are enforced."""
    before = scripts.state()
    scripts.add(REBUILD)
    number, stopped_at = 1, list[str]()
    while True:
        statement = await cancelled_at(filled, scripts, number)
        await until_free(scripts.database)
        if statement is None:
            break
        stopped_at.append(statement)
        if scripts.state() != before:  # only if COMMIT had been sent, which is awaited
            assert scripts.query("SELECT version_num FROM alembic_version") == [("0002",)]
            assert statement in {"COMMIT", "PRAGMA foreign_keys = 1", "PRAGMA foreign_keys"}
            scripts.query("UPDATE alembic_version SET version_num = '0001'")
            before = scripts.state()
        await enforced_without_changes(filled)
        number += 1
    assert "BEGIN IMMEDIATE" in stopped_at
    assert {"PRAGMA foreign_keys = 0", "PRAGMA foreign_keys = 1", "COMMIT"} < set(stopped_at)
    assert any("DROP TABLE parents" in statement for statement in stopped_at)
    await enforced(filled)


async def enforced_without_changes(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        assert await session.scalar(text("PRAGMA foreign_keys")) == 1


async def test_a_running_statement_is_stopped(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """An endless statement, and all earlier changes, are undone when CancelledError is raised."""
    before = scripts.state()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    hooks["say"] = lambda: loop.call_soon_threadsafe(began.set)
    scripts.add(f"op.execute('DELETE FROM children')\nhooks['say']()\nop.execute('{ENDLESS}')")
    migrating = asyncio.create_task(upgrade(filled, "head", config=scripts.ini))
    await began.wait()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(migrating, 0.05)
    assert scripts.state() == before
    await enforced(filled)


async def test_a_cancellation_waits_for_the_end(scripts: Scripts, filled: SQLiteDatabase) -> None:
    """Python code cannot be stopped: it runs to its end, however often the task is cancelled."""
    before = scripts.state()
    inside, leave = threading.Event(), threading.Event()
    hooks["stop"] = lambda: wait_inside(inside, leave)
    scripts.add("op.execute('DELETE FROM children')\nhooks['stop']()\nop.execute('SELECT 1')")
    migrating = asyncio.create_task(upgrade(filled, "head", config=scripts.ini))
    await until(inside.is_set)
    for _ in range(3):
        migrating.cancel()
        await asyncio.sleep(0)
        assert not migrating.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await migrating
    assert scripts.state() == before
    await enforced(filled)


async def test_closing_the_database_stops_a_migration(scripts: Scripts) -> None:
    """The migration gets an error that says so, and is rolled back."""
    began, loop = asyncio.Event(), asyncio.get_running_loop()
    hooks["say"] = lambda: loop.call_soon_threadsafe(began.set)
    scripts.add(f"op.execute('CREATE TABLE half (id)')\nhooks['say']()\nop.execute('{ENDLESS}')")
    db = await SQLiteDatabase(scripts.database).open()
    await upgrade(db, "0001", config=scripts.ini)
    before = scripts.state()
    migrating = asyncio.create_task(upgrade(db, "head", config=scripts.ini))
    await began.wait()
    await db.close(timeout=0)
    with pytest.raises(OperationalError, match=r"app\.db was closed|interrupted"):
        await migrating
    assert scripts.state() == before


async def test_a_connection_that_is_lost_after_the_commit(
    scripts: Scripts, filled: SQLiteDatabase
) -> None:
    """A committed migration is no failure; the next writer gets a sound connection."""
    engine = filled.writer_engine.sync_engine

    def lose(conn: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement == "PRAGMA foreign_keys = 1":
            raw = conn.connection.dbapi_connection
            assert isinstance(raw, SQLiteConnection)
            raw.give_up("it was taken away", keep=False)

    event.listen(engine, "before_cursor_execute", lose)
    scripts.add("op.execute('CREATE TABLE done (id)')")
    await upgrade(filled, "head", config=scripts.ini)
    event.remove(engine, "before_cursor_execute", lose)
    assert await current(filled, config=scripts.ini) == ("0002",)
    await enforced(filled)


# -- the end of the process ---------------------------------------------------------------------


def test_a_killed_migration_leaves_the_database_as_it_was(scripts: Scripts) -> None:
    """SIGKILL in the middle, with much already in the log, does no harm; the next upgrade works."""
    scripts.migrate("0001")
    scripts.fill(parents=10, children=1_000)
    before = scripts.state()
    many = "WITH RECURSIVE n(i) AS (SELECT 1001 UNION ALL SELECT i + 1 FROM n LIMIT 200000)"
    name = scripts.add(
        "import sys\n"
        "op.execute('PRAGMA cache_size = 10')\n"
        f"op.execute('INSERT INTO children {many} SELECT i, 1 FROM n')\n"
        "print('inside', flush=True)\n"
        "sys.stdin.readline()"
    )
    process = scripts.start("-m", "alembic", "upgrade", "head")
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    assert (scripts.directory / "app.db-wal").stat().st_size > 1_000_000
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert scripts.state() == before

    again = scripts.start("-m", "alembic", "upgrade", "head")
    assert again.stdin is not None
    again.stdin.write("\n")
    again.stdin.flush()
    finish(again)
    assert scripts.query("SELECT version_num FROM alembic_version") == [(name,)]
    assert scripts.query("SELECT count(*) FROM children") == [(201_000,)]


INTERRUPTED = """
import asyncio
from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.migrations import upgrade

async def main():
    async with SQLiteDatabase("app.db") as db:
        await upgrade(db, "head", config="alembic.ini")

asyncio.run(main())
"""


def test_ctrl_c_during_a_migration(scripts: Scripts) -> None:
    """The program ends, and the database is as it was."""
    scripts.migrate("0001")
    before = scripts.state()
    scripts.add(
        "op.execute('CREATE TABLE half (id)')\nprint('inside', flush=True)\n"
        f"op.execute('{ENDLESS}')"
    )
    process = scripts.start("-c", INTERRUPTED)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    printed = finish(process, fails=True)
    assert "KeyboardInterrupt" in printed.err
    assert scripts.state() == before


ABANDONED = """
import asyncio, threading
from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.migrations import upgrade
from tests.helpers import until
from tests.migrations.scripts import hooks

inside = threading.Event()
hooks["inside"] = inside.set

async def main():
    db = await SQLiteDatabase("app.db").open()
    globals()["migrating"] = asyncio.ensure_future(upgrade(db, "head", config="alembic.ini"))
    await until(inside.is_set)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
print("left", flush=True)
"""


def test_the_interpreter_exits_whatever_a_revision_does(scripts: Scripts) -> None:
    """No hang: a program that ends does not wait for a revision that never ends."""
    scripts.add("import threading\nhooks['inside']()\nthreading.Event().wait()")
    process = scripts.start("-W", "ignore", "-c", ABANDONED)
    with process:
        try:
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert out == "left\n"
    assert scripts.query("SELECT * FROM sqlite_master") == []


# -- a coroutine aside --------------------------------------------------------------------------


async def test_a_coroutine_runs_in_another_thread_and_loop() -> None:
    """Its result or error is passed to the caller."""

    async def look() -> tuple[int, asyncio.AbstractEventLoop]:
        await asyncio.sleep(0)
        return threading.get_ident(), asyncio.get_running_loop()

    thread, loop = await run_aside(look())
    assert thread != threading.get_ident()
    assert loop is not asyncio.get_running_loop()
    assert loop.is_closed()


async def test_an_error_after_a_cancellation_is_the_cause() -> None:
    """An error that occurs meanwhile is not lost."""
    started = threading.Event()

    async def stubborn() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    task = asyncio.create_task(run_aside(stubborn()))
    await until(started.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    cause = caught.value.__cause__ or getattr(caught.value.__context__, "__cause__", None)
    assert isinstance(cause, ZeroDivisionError)


async def test_the_writer_of_an_engine_is_used(writer: AsyncEngine, path: Path) -> None:
    """A coroutine aside may use an engine of the caller's loop."""

    async def create() -> None:
        async with writer.begin() as connection:
            await connection.execute(text("CREATE TABLE t (n)"))

    await run_aside(create())
    async with writer.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM t"))).scalar_one() == 0
    assert path.exists()


async def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """No task and no event loop is left behind."""
    refuse = Mock(side_effect=RuntimeError("can't start new thread"))
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await run_aside(asyncio.sleep(0))
    gc.collect()  # leftovers would raise an error here
