"""ServerDatabase is used like SQLiteDatabase: blocks, functions, session maker, life cycle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sa_sqlite_pool import (
    AwaitableError,
    ConfigurationError,
    DatabaseClosedError,
    SessionEndedError,
    TurnAlreadyHeldError,
    WriteTimeout,
)
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App
from tests.servers.doing import LONG
from tests.servers.models import Account, create_accounts

SERVER = "SELECT current_setting('port')::int"


async def test_writes_go_to_the_primary_and_reads_to_a_replica(app: App) -> None:
    """db.write() and db.read() use different servers, and a read sees the previous write."""
    async with app.open() as db:
        await create_accounts(db)
        async with db.write() as session:
            assert await session.scalar(text(SERVER)) == app.cluster.primary.port
            (await session.get_one(Account, 1)).balance = 7
        async with db.fresh(), db.read() as session:
            found = await session.scalar(text(SERVER))
            assert found in {replica.port for replica in app.cluster.replicas}


async def test_a_read_sees_what_was_written_before(app: App) -> None:
    """In a fresh() block, each read sees the write before it, on whichever server it runs."""
    async with app.open() as db:
        await create_accounts(db)
        async with db.fresh():
            for number in range(50):
                async with db.write() as session:
                    (await session.get_one(Account, 1)).balance = number
                async with db.read() as session:
                    assert (await session.get_one(Account, 1)).balance == number


async def test_a_token_is_for_another_block(app: App) -> None:
    """A token passed on from one block covers its writes, and a read with that token sees them."""
    async with app.open() as db:
        await create_accounts(db)
        for number in range(50):
            async with db.fresh() as seen, db.write() as session:
                (await session.get_one(Account, 1)).balance = number
            async with db.fresh(seen.token), db.read() as session:
                assert (await session.get_one(Account, 1)).balance == number


async def test_a_read_after_a_write_asks_the_primary_nothing(app: App) -> None:
    """The commit's position covers all that the block has seen on the primary: a replica reads."""
    async with app.open(freshness_wait=10) as db:
        await create_accounts(db)
        async with db.fresh():
            async with db.read():
                pass
            for number in range(10):
                async with db.write() as session:
                    (await session.get_one(Account, 1)).balance = number
                async with db.read() as session:
                    assert (await session.get_one(Account, 1)).balance == number
        (primary,) = (one for one in db.reader_engine.pool.servers if one.is_primary)  # type: ignore[attr-defined]
        assert primary.checkouts == 0


async def test_a_read_is_one_snapshot_and_cannot_write(app: App) -> None:
    """A transaction of db.read() is REPEATABLE READ and READ ONLY, also on the primary."""
    for replicas in ([], app.replica_urls):
        async with app.open(replicas=replicas) as db, db.read() as session:
            level = await session.scalar(text("SHOW transaction_isolation"))
            read_only = await session.scalar(text("SHOW transaction_read_only"))
            assert (level, read_only) == ("repeatable read", "on")


async def test_functions(app: App) -> None:
    """run_read(), run_write() and their Core forms run a plain function in one transaction."""

    def deposit(session: Session, amount: int) -> int:
        account = session.get_one(Account, 1)
        account.balance += amount
        return account.balance

    def balance(connection: Connection) -> int:
        return connection.scalar(select(Account.balance)) or 0

    def deposit_core(connection: Connection, amount: int) -> None:
        connection.execute(update(Account).values(balance=Account.balance + amount))

    async with app.open() as db, db.fresh():
        await create_accounts(db)
        assert await db.run_write(deposit, 5) == 5
        await db.run_write_core(deposit_core, amount=2)
        assert await db.run_read_core(balance) == 7
        assert await db.run_read(lambda session: session.get_one(Account, 1).balance) == 7


async def test_a_coroutine_function_is_refused(app: App) -> None:
    """A coroutine function is refused at once, because its coroutine could not be awaited."""

    async def wrong(_: Any) -> None: ...

    async with app.open() as db:
        for run in (db.run_read, db.run_write, db.run_read_core, db.run_write_core):
            with pytest.raises(AwaitableError, match="coroutine function"):
                await run(wrong)  # type: ignore[unused-coroutine]


@pytest.mark.parametrize("writes", ["in turn", "serializable"])
async def test_no_update_is_lost(app: App, writes: str) -> None:
    """A hundred tasks of two databases each read, add one and write: the sum is one hundred."""

    def deposit(session: Session) -> None:
        account = session.get_one(Account, 1)
        account.balance += 1

    async with (
        app.open(writes=writes, attempts=1000) as db,
        app.open(writes=writes, attempts=1000) as other,
    ):
        await create_accounts(db)
        await asyncio.gather(*(which.run_write(deposit) for which in [db, other] * 50))
        async with db.write() as session:
            assert (await session.get_one(Account, 1)).balance == 100


async def test_a_task_that_would_wait_for_itself(app: App) -> None:
    """A second db.write() in the same task raises an error at once, as on SQLite."""
    async with app.open() as db, db.write() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(TurnAlreadyHeldError, match="already holds the write turn"):
            async with db.write() as second:
                await second.execute(text("SELECT 1"))


async def test_the_turn_does_not_come(app: App) -> None:
    """A time-out names the task that holds the turn, and its last statement."""
    async with app.open(write_timeout=0.05) as db:
        holds, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with db.write() as session:
                await session.execute(text("SELECT 'the holder'"))
                holds.set()
                await release.wait()

        task = asyncio.create_task(hold(), name="import-42")
        await holds.wait()
        with pytest.raises(WriteTimeout, match=r"'import-42'.*the holder"):
            async with db.write() as session:
                await session.execute(text("SELECT 1"))
        release.set()
        await task


async def test_another_process_has_the_turn(app: App) -> None:
    """A time-out names the turn's holder on the server: its program, its state and its last SQL."""
    async with app.open(write_timeout=0.2) as db, app.open() as other:
        async with other.write() as session:
            await session.execute(text("SELECT 'the holder'"))
            with pytest.raises(WriteTimeout, match=r"PID \d+.*idle in transaction.*the holder"):
                async with db.write() as second:
                    await second.execute(text("SELECT 1"))
        async with db.write() as session:
            assert await session.scalar(text("SHOW lock_timeout")) == "0"


async def test_life_cycle(app: App) -> None:
    """Before open() and after close(), the error says so; a session ends with its block."""
    db = app.open()
    with pytest.raises(DatabaseClosedError, match="is not open"):
        await db.run_read(lambda _: None)
    async with db:
        async with db.read() as session:
            pass
        with pytest.raises(SessionEndedError):
            await session.execute(text("SELECT 1"))
    with pytest.raises(DatabaseClosedError, match="was closed; open it again"):
        db.sessionmaker()
    assert "closed" in repr(db)
    with pytest.raises(DatabaseClosedError, match="was closed; open it again"):
        await db.writer_engine.connect()


async def test_close_ends_what_waits_and_what_runs(app: App) -> None:
    """close() makes waiting tasks fail, and closes connections whose work does not end."""
    db = await app.open().open()
    holds = asyncio.Event()

    async def hold() -> None:
        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            holds.set()
            await session.execute(LONG)

    async def wait() -> None:
        async with db.write() as session:
            await session.execute(text("SELECT 1"))

    running = asyncio.create_task(hold())
    await holds.wait()
    waiting = asyncio.create_task(wait())
    while db.writer_engine.pool.servers[0].line.waiting == 0:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    await db.close(timeout=0)
    done = await asyncio.gather(running, waiting, return_exceptions=True)
    assert isinstance(done[1], DatabaseClosedError)
    assert isinstance(done[0], Exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "sqlite+aiosqlite:///app.db"}, "is not a PostgreSQL URL"),
        ({"url": "://"}, "is not a URL"),
        ({"replicas": "postgresql+asyncpg://replica/app"}, "must be a list"),
        ({"replicas": ["postgresql+asyncpg:///app?host=a:1&host=b:2"]}, "has the hosts a:1, b:2"),
        ({"replicas": ["postgresql+asyncpg://a,b/app"]}, "has the hosts a, b"),
        ({"writes": "parallel"}, "writes must be one of 'in turn', 'serializable'"),
        ({"isolation_level": "SERIALIZABLE"}, "chooses its pools and isolation levels"),
        ({"readers": 0}, "readers must be a whole number"),
        ({"write_timeout": -1}, "write_timeout must be a number of seconds"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """They are refused before a server is contacted."""
    pytest.importorskip("asyncpg")
    with pytest.raises(ConfigurationError, match=message):
        ServerDatabase(**{"url": "postgresql+asyncpg://primary/app", **arguments})


async def test_engines_are_plain_engines(app: App) -> None:
    """Core works on the engines: the writer's transactions hold the turn; the reader reads."""
    async with app.open() as db:
        assert isinstance(db.writer_engine, AsyncEngine)
        async with db.writer_engine.begin() as connection:
            locks = await connection.scalar(
                text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            )
            assert locks == 1
        async with db.reader_engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        assert "0 checked out" in db.writer_engine.pool.status()


@pytest.mark.parametrize("last_first", [True, False])
async def test_which_connection_at_rest_is_lent(app: App, last_first: bool) -> None:
    """The connection that was returned last is lent, unless ``pool_use_lifo=False`` is passed."""
    process = text("SELECT pg_backend_pid()")
    async with app.open(replicas=[], readers=2, pool_use_lifo=last_first) as db:
        await db.reader_engine.dispose()
        async with db.reader_engine.connect() as one, db.reader_engine.connect() as two:
            opened = [await each.scalar(process) for each in (two, one)]  # in order of return
        lent = []
        for _ in range(2):
            async with db.reader_engine.connect() as connection:
                lent.append(await connection.scalar(process))
        assert lent == (opened[1:] * 2 if last_first else opened)
