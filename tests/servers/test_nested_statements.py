"""Listeners that themselves execute statements, such as SET LOCAL for row-level security."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ExceptionContext, event, insert, select, text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import ServerDatabase, StatementTimeout
from sa_sqlite_pool.servers.limits import running as limits
from sa_sqlite_pool.servers.pool import ServerPool
from sa_sqlite_pool.system.loop_state import of_running_loop
from sa_sqlite_pool.turn.deadlines import Deadlines
from tests.postgresql import App, until
from tests.servers.doing import LONG, ONE
from tests.servers.freezing import nothing_left
from tests.servers.models import Account, create_accounts

MARK = "app.me"
SET = f"SET LOCAL {MARK} = 'x'"
SLEEP = "SELECT pg_sleep(0.4)"
SHOWN = text(f"SELECT current_setting('{MARK}', true)")


def listen(
    db: ServerDatabase, do: Callable[[Connection], object], name: str = "before", **how: Any
) -> None:
    """Call ``do`` for each statement of the writer that ``do`` has not executed itself."""

    def called(connection: Connection, _cursor: Any, sql: str, *_: Any) -> None:
        if MARK not in sql and "SAVEPOINT" not in sql:
            do(connection)

    event.listen(db.writer_engine.sync_engine, f"{name}_cursor_execute", called, **how)


@asynccontextmanager
async def no_timer_left(db: ServerDatabase) -> AsyncIterator[None]:
    """Check that no time limit is pending after the block."""
    async with nothing_left(db):
        yield
    assert of_running_loop(Deadlines)._queues == {}


LISTENERS = [("before", False), ("before", True), ("after", False), ("after", True)]


@pytest.mark.parametrize(("name", "first"), LISTENERS)
async def test_a_listener_that_executes(app: App, name: str, first: bool) -> None:
    """It may do so for one statement, many, or streams: no timer is left, and each counts once."""
    async with app.open(replicas=[], statement_timeout=30) as db:
        await create_accounts(db, 0)
        done = 0

        def do(connection: Connection) -> None:
            nonlocal done
            done += 1
            connection.exec_driver_sql(SET)

        listen(db, do, name, insert=first)
        before = db.statistics().engine("writer").statements
        async with no_timer_left(db), db.write() as session:
            await session.execute(ONE)
            session.add_all(Account(balance=i) for i in range(3))
            await session.flush()
            await session.execute(insert(Account), [{"balance": 1}, {"balance": 2}])
            update = text("UPDATE accounts SET balance = 9 WHERE id = :id")
            await session.execute(update, [{"id": 1}, {"id": 2}])
            options = {"yield_per": 2}
            streamed = await session.stream_scalars(select(Account.id), execution_options=options)
            assert len([one async for one in streamed]) == 5
        async with no_timer_left(db):
            with pytest.raises(DBAPIError):
                async with db.write() as session:
                    await session.execute(text("SELECT nothing"))
        after = db.statistics().engine("writer").statements
        assert done == (6 if name == "before" else 5)
        assert after.inline - before.inline == 5 + done
        assert after.failed - before.failed == 1


async def test_both_have_all_of_their_time(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner statement's time does not count for the outer one, nor in the client's timers."""
    monkeypatch.setattr(limits, "SECONDS_TO_ANSWER", 0.1)
    async with app.open(replicas=[], statement_timeout=0.6) as db:
        listen(db, lambda connection: connection.exec_driver_sql(f"{SLEEP} -- {MARK}"))
        async with no_timer_left(db), db.write() as session:
            await session.execute(text(SLEEP))


async def test_the_inner_statement_may_take_longer(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may exceed the outer one's limit, whose timers are paused meanwhile."""
    monkeypatch.setattr(limits, "SECONDS_TO_ANSWER", 0.1)
    async with app.open(replicas=[]) as db:
        inner = text(f"{SLEEP} -- {MARK}")
        listen(db, lambda on: on.execute(inner, execution_options={"statement_timeout": 30}))
        async with no_timer_left(db), db.write() as session:
            assert await session.scalar(ONE, execution_options={"statement_timeout": 0.2}) == 1


async def test_the_outer_statement_still_has_its_limit(app: App) -> None:
    """The outer statement's limit still applies after the inner one has ended."""
    async with app.open(replicas=[], statement_timeout=0.3) as db:
        listen(db, lambda connection: connection.exec_driver_sql(SET))
        async with no_timer_left(db):
            with pytest.raises(StatementTimeout, match="pg_sleep"):
                async with db.write() as session:
                    await session.execute(LONG)


async def test_the_statement_that_ran_last(app: App) -> None:
    """Waiting tasks and idle warnings show the correct one: the inner one is executed first."""
    async with app.open(replicas=[]) as db:
        pool: Any = db.writer_engine.pool
        assert isinstance(pool, ServerPool)
        seen: list[Any] = []

        def look(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
            (permit,) = pool.checked_out.permits.values()
            seen.append((sql, permit.last_sql))

        listen(db, lambda connection: connection.exec_driver_sql(SET))
        event.listen(db.writer_engine.sync_engine, "after_cursor_execute", look)
        async with db.write() as session:
            await session.execute(ONE)
        assert seen == [(SET, SET), ("SELECT 1", "SELECT 1")]


@pytest.mark.parametrize("swallowed", [False, True])
async def test_an_inner_statement_that_fails(app: App, swallowed: bool) -> None:
    """Its error becomes the outer one's, unless the listener catches it."""
    async with app.open(replicas=[], statement_timeout=30) as db:

        def do(connection: Connection) -> None:
            taken = DBAPIError if swallowed else ZeroDivisionError
            with suppress(taken), connection.begin_nested():
                connection.exec_driver_sql(f"SELECT nothing -- {MARK}")

        listen(db, do)
        async with no_timer_left(db):
            if swallowed:
                async with db.write() as session:
                    assert await session.scalar(ONE) == 1
            else:
                with pytest.raises(DBAPIError, match="nothing"):
                    async with db.write() as session:
                        await session.execute(ONE)


@pytest.mark.parametrize("name", ["before", "after"])
async def test_a_listener_that_raises(app: App, name: str) -> None:
    """It ends its statement, and the statements that it has executed have ended, too."""
    async with app.open(replicas=[], statement_timeout=30) as db:
        fails = True

        def do(connection: Connection) -> None:
            connection.exec_driver_sql(SET)
            if fails:
                raise ValueError("mine")

        listen(db, do, name)
        async with no_timer_left(db), db.write() as session:
            with pytest.raises(ValueError, match="mine"):
                await session.execute(ONE)
            fails = False
            assert await session.scalar(ONE) == 1


async def test_a_listener_of_errors_that_raises(app: App) -> None:
    """It is called before the package's: the failed statement has ended, but ends no others."""

    def fail(_: object) -> None:
        raise KeyError("mine")

    async with app.open(replicas=[], statement_timeout=30) as db:
        event.listen(Engine, "handle_error", fail)
        try:
            async with no_timer_left(db), db.write() as session:
                with pytest.raises(KeyError, match="mine"):
                    async with session.begin_nested():
                        await session.execute(text("SELECT nothing"))
                assert of_running_loop(Deadlines)._queues == {}
                assert await session.scalar(ONE) == 1
        finally:
            event.remove(Engine, "handle_error", fail)
        assert db.statistics().engine("writer").statements.failed == 1


async def test_an_error_that_is_not_explained(app: App) -> None:
    """A listener raises it before the package's is called: it remains as SQLAlchemy created it."""

    def fail(context: ExceptionContext) -> None:
        assert context.sqlalchemy_exception is not None
        raise context.sqlalchemy_exception

    async with app.open(replicas=[], statement_timeout=30) as db:
        event.listen(Engine, "handle_error", fail)
        try:
            with pytest.raises(DBAPIError, match="nothing") as caught:
                async with db.write() as session:
                    await session.execute(text("SELECT nothing"))
        finally:
            event.remove(Engine, "handle_error", fail)
    for again in (copy.deepcopy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert str(again) == str(caught.value)


async def test_a_listener_of_errors_that_executes(app: App) -> None:
    """Its own error contains nothing from the package either."""

    def ask(context: ExceptionContext) -> None:
        assert context.connection is not None
        context.connection.exec_driver_sql("SELECT 2")

    async with app.open(replicas=[], statement_timeout=30) as db, nothing_left(db):
        event.listen(db.writer_engine.sync_engine, "handle_error", ask)
        with pytest.raises(DBAPIError, match="current transaction is aborted") as caught:
            async with db.write() as session:
                await session.execute(text("SELECT nothing"))
        for again in (copy.deepcopy(caught.value), pickle.loads(pickle.dumps(caught.value))):
            assert str(again) == str(caught.value)


@pytest.mark.parametrize("how", [*range(3)])
async def test_a_listener_that_executes_it_by_itself(app: App, how: int) -> None:
    """It may call the dialect's methods in any possible way."""

    def do_execute(cursor: Any, sql: str, parameters: Any, context: Any) -> bool:
        call = context.dialect.do_execute
        if how == 0:
            call(cursor, sql, parameters, context)
        elif how == 1:
            call(cursor, statement=sql, parameters=parameters, context=context)
        else:
            call(cursor, sql, parameters)
        return True

    def do_execute_no_params(cursor: Any, sql: str, context: Any) -> bool:
        call = context.dialect.do_execute_no_params
        call(*((cursor, sql, context), (cursor, sql), (cursor, sql))[how])
        return True

    async with app.open(replicas=[], statement_timeout=30) as db:
        event.listen(db.writer_engine.sync_engine, "do_execute", do_execute)
        event.listen(db.writer_engine.sync_engine, "do_execute_no_params", do_execute_no_params)
        async with no_timer_left(db), db.write() as session:
            assert await session.scalar(ONE) == 1
            options = {"no_parameters": True}
            assert await session.scalar(ONE, execution_options=options) == 1


async def test_a_connection_that_is_invalidated_meanwhile(app: App) -> None:
    """Another task invalidates it: the statement raises the driver's error."""
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    async with (
        app.open(replicas=[], statement_timeout=30) as db,
        nothing_left(db),
        db.writer_engine.connect() as connection,
    ):
        running = asyncio.create_task(connection.execute(LONG))
        await until(lambda: app.sql(asleep) == "1")
        await connection.invalidate()
        with pytest.raises(DBAPIError, match=r"SELECT pg_sleep\(60\)"):
            await running


async def test_a_listener_of_the_inner_statement_that_raises(app: App) -> None:
    """SQLAlchemy notifies no other listener: the inner statement ends with the outer one."""
    async with app.open(replicas=[], statement_timeout=30) as db:

        def refuse(_connection: Connection, _cursor: Any, sql: str, *_: Any) -> None:
            if sql == SET:
                raise ValueError("mine")

        def do(connection: Connection) -> None:
            with pytest.raises(ValueError, match="mine"):
                connection.exec_driver_sql(SET)

        listen(db, do)
        event.listen(db.writer_engine.sync_engine, "before_cursor_execute", refuse)
        async with no_timer_left(db), db.write() as session:
            assert await session.scalar(ONE) == 1
            assert of_running_loop(Deadlines)._queues == {}


async def test_a_limit_of_an_engine_and_a_listener(app: App) -> None:
    """The query that sends the limit to the server does not reach listeners."""
    async with app.open(replicas=[]) as db:
        heard: list[str] = []

        def called(connection: Connection, _cursor: Any, sql: str, *_: Any) -> None:
            heard.append(sql)
            if MARK not in sql:
                connection.exec_driver_sql(SET)

        event.listen(db.writer_engine.sync_engine, "before_cursor_execute", called)
        engine = db.writer_engine.execution_options(statement_timeout=7)
        async with no_timer_left(db), engine.begin() as connection:
            assert await connection.scalar(text("SHOW statement_timeout")) == "7s"
            assert await connection.scalar(SHOWN) == "x"
        assert heard == ["SHOW statement_timeout", SET, SHOWN.text]


async def test_no_look_for_locks_after_a_statement(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none while its connection is gone either: the task that looks ends with it."""
    async with app.open(replicas=[]) as db:
        looks = 0

        def look(_: limits.Running, _limit: float) -> float | None:
            nonlocal looks
            looks += 1
            return None if looks == 2 else 0.0

        monkeypatch.setattr(limits.Running, "_find_blockers", look)
        pool: Any = db.writer_engine.pool
        permit = pool.servers[0].line.acquire_nowait()
        one = limits.Running(pool, permit, None, "SELECT 1", None, 0.0)
        with one:
            one._look()
            assert one._looking is not None
            looking = one._looking
        await asyncio.wait([looking])
        assert of_running_loop(Deadlines)._queues == {}
        looks = 1
        with one:
            one._look()
            looking = one._looking
            await looking
            assert looks == 2
        permit.line.release(permit)
        assert of_running_loop(Deadlines)._queues == {}
