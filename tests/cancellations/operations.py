"""The operations of the tasks: small functions, each for one place."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from random import Random
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.campaigns import OnPurpose, a_moment

from .doors import Door, Executor, MakeEngine, MakeSession, Place
from .moments import near
from .oracle import NUMBERS, Ledger

Run = Callable[[Ledger, Random], Coroutine[Any, Any, None]]


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entries"

    token: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True)
    parts: Mapped[int]


class WrongAnswerError(Exception):
    """A read whose result violates a promise."""


INSERT = text("INSERT INTO entries (token, part, parts) VALUES (:token, :part, :parts)")
# Each row takes a pass over numbers, so an interruption finds some rows written.
INSERT_SLOWLY = text(
    "INSERT INTO entries (token, part, parts) SELECT :token, a.i, :parts FROM numbers a "
    "WHERE a.i < :parts AND (SELECT sum(b.i * a.i) FROM numbers b) >= 0"
)
SCAN = text("SELECT sum(a.i * b.i) FROM numbers a, numbers b WHERE a.i < :rows")
_NUMBERS = text("SELECT i FROM numbers ORDER BY i")
_ENTRIES = text("SELECT count(*), total(parts) FROM entries")
ONE_TOKEN = text("SELECT count(*) FROM entries WHERE token = :token")
TORN_TOKENS = text(
    "SELECT token FROM entries WHERE token > (SELECT max(token) FROM entries) - 1000 "
    "GROUP BY token HAVING count(*) <> max(parts)"
)
COUNTER = text("SELECT value FROM counters WHERE id = 1")
SET_COUNTER = text("UPDATE counters SET value = :value WHERE id = 1")


def expect(answer: object, expected: object, what: str) -> None:
    if answer != expected:
        raise WrongAnswerError(f"{what}: {answer!r}, not {expected!r}")


def expect_scan(total: object, rows: int) -> None:
    every = NUMBERS * (NUMBERS - 1) // 2
    expect(total, rows * (rows - 1) // 2 * every, "sum of products")


async def _insert(executor: Executor, ledger: Ledger, token: int) -> None:
    """Insert each row with a separate statement."""
    for row in ledger.rows(token):
        await executor.execute(INSERT, row)


# -- writes: in a transaction that commits when its block ends ----------------------------------


async def rows(parts: int, place: Place, ledger: Ledger, _rng: Random) -> None:
    token = ledger.token(parts)
    async with place() as executor:
        await _insert(executor, ledger, token)
        near()
    ledger.acknowledge(token)


async def many_rows(place: Place, ledger: Ledger, _rng: Random) -> None:
    """Call ``executemany`` twice."""
    token = ledger.token(parts=40)
    rows = ledger.rows(token)
    async with place() as executor:
        await executor.execute(INSERT, rows[:10])
        near()
        await executor.execute(INSERT, rows[10:])
    ledger.acknowledge(token)


async def rows_selected_slowly(place: Place, ledger: Ledger, rng: Random) -> None:
    """Run ``INSERT … SELECT``, about 10 ms, after a statement that has acquired the turn."""
    parts = rng.randint(50, 200)
    token, first = ledger.token(parts), ledger.token()
    async with place() as executor:
        await _insert(executor, ledger, first)
        near()
        await executor.execute(INSERT_SLOWLY, {"token": token, "parts": parts})
    ledger.acknowledge(token)
    ledger.acknowledge(first)


async def rolled_back(place: Place, ledger: Ledger, _rng: Random) -> None:
    token = ledger.doomed(parts=2)
    with contextlib.suppress(OnPurpose):
        async with place() as executor:
            await _insert(executor, ledger, token)
            near()
            raise OnPurpose


async def savepoint_rolled_back(place: Place, ledger: Ledger, _rng: Random) -> None:
    token, nested = ledger.token(parts=2), ledger.doomed()
    async with place() as executor:
        first, second = ledger.rows(token)
        await executor.execute(INSERT, first)
        with contextlib.suppress(OnPurpose):
            async with executor.begin_nested():
                await _insert(executor, ledger, nested)
                near()
                raise OnPurpose
        await executor.execute(INSERT, second)
    ledger.acknowledge(token)


async def read_then_write(place: Place, ledger: Ledger, _rng: Random) -> None:
    """Read, then write: an auto session changes from a reader to the writer."""
    token = ledger.token(parts=2)
    async with place() as executor:
        expect(await executor.scalar(ONE_TOKEN, {"token": token}), 0, "rows before the write")
        await _insert(executor, ledger, token)
        near()
        expect(await executor.scalar(ONE_TOKEN, {"token": token}), 2, "own rows")
    ledger.acknowledge(token)


async def read_modify_write(place: Place, ledger: Ledger, _rng: Random) -> None:
    """Add to a value read; only where no other write can occur in between and lose additions."""
    token = ledger.counted()
    async with place() as executor:
        value = await executor.scalar(COUNTER)
        await executor.execute(SET_COUNTER, {"value": value + 1})
        await _insert(executor, ledger, token)
        near()
    ledger.acknowledge(token)


# -- writes that commit by hand -----------------------------------------------------------------


async def orm_flush(make: MakeSession, ledger: Ledger, _rng: Random) -> None:
    token = ledger.token(parts=2)
    async with make() as session:
        session.add_all([Entry(**row) for row in ledger.rows(token)])
        await session.flush()
        near()
        await session.commit()
        ledger.acknowledge(token)


async def autocommit(parts: int, engine: AsyncEngine, ledger: Ledger, _rng: Random) -> None:
    """Run one statement in AUTOCOMMIT; ``executemany`` is all or nothing here, too."""
    token = ledger.token(parts)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        near()
        await connection.execute(INSERT, ledger.rows(token))
        ledger.acknowledge(token)


async def unshielded_close(engine: AsyncEngine, ledger: Ledger, rng: Random) -> None:
    """Close a connection explicitly, as in code without ``async with``."""
    commits = rng.random() < 0.5
    token = ledger.token(parts=2) if commits else ledger.doomed(parts=2)
    connection = await engine.connect()
    try:
        await _insert(connection, ledger, token)
        near()
        if commits:
            await connection.commit()
            ledger.acknowledge(token)
    finally:
        try:
            await connection.rollback()
        finally:
            await connection.close()


async def on_after_timeout(engine: AsyncEngine, ledger: Ledger, rng: Random) -> None:
    """Cancel a statement, and then run another transaction on the same connection."""
    given_up, token = ledger.doomed(parts=100), ledger.token(parts=2)
    async with engine.connect() as connection:
        slow = connection.execute(INSERT_SLOWLY, {"token": given_up, "parts": 100})
        with contextlib.suppress(asyncio.TimeoutError):
            await _limit(slow, rng.uniform(0, 0.020))
        await connection.rollback()
        await _insert(connection, ledger, token)
        near()
        await connection.commit()
        ledger.acknowledge(token)


async def new_engine(make: MakeEngine, ledger: Ledger, rng: Random) -> None:
    """Use an engine that has not opened a connection yet, and dispose of it afterwards."""
    engine = make()
    try:
        near()
        await rows(1, engine.begin, ledger, rng)
    finally:
        await asyncio.shield(engine.dispose())


# -- reads --------------------------------------------------------------------------------------


async def point_read(place: Place, _ledger: Ledger, _rng: Random) -> None:
    async with place() as executor:
        near()
        expect(await executor.scalar(ONE_TOKEN, {"token": 0}), 0, "rows of no write")


async def scan(place: Place, _ledger: Ledger, rng: Random) -> None:
    rows = rng.randint(200, 1_000)
    async with place() as executor:
        near()
        total = await executor.scalar(SCAN, {"rows": rows})
    expect_scan(total, rows)


async def stream(place: Place, _ledger: Ledger, rng: Random) -> None:
    """Read a stream in full, or partly, and leave the rest to the close of the connection."""
    wanted = rng.choice([NUMBERS, rng.randrange(NUMBERS)])
    seen = 0
    async with place() as executor:
        result = await executor.stream(_NUMBERS, execution_options={"yield_per": 100})
        async for number in result.scalars():
            near()
            expect(number, seen, "number streamed")
            seen += 1
            if seen == wanted:
                break


async def snapshot(place: Place, _ledger: Ledger, _rng: Random) -> None:
    async with place() as executor:
        first = (await executor.execute(_ENTRIES)).one()
        near()
        await executor.execute(SCAN, {"rows": 100})
        expect((await executor.execute(_ENTRIES)).one(), first, "the same query, a moment later")


async def whole_tokens(place: Place, _ledger: Ledger, _rng: Random) -> None:
    async with place() as executor:
        expect(list((await executor.execute(TORN_TOKENS)).scalars()), [], "torn tokens")


async def fresh_read(write: Place, read: Place, ledger: Ledger, _rng: Random) -> None:
    """Check that a read after a commit sees it."""
    token = ledger.token()
    async with write() as executor:
        await _insert(executor, ledger, token)
    ledger.acknowledge(token)
    near()
    async with read() as executor:
        expect(await executor.scalar(ONE_TOKEN, {"token": token}), 1, "rows just committed")


# -- operations around operations ---------------------------------------------------------------


async def checkpoint(
    run: Callable[[str], Coroutine[Any, Any, object]], _ledger: Ledger, rng: Random
) -> None:
    await run(rng.choice(["passive", "full", "restart", "truncate"]))


async def timed_out(inner: Run, ledger: Ledger, rng: Random) -> None:
    limit = rng.choice([_limit, asyncio.wait_for])
    with contextlib.suppress(asyncio.TimeoutError):
        await limit(inner(ledger, rng), rng.uniform(0, 0.020))


async def one_of_group_fails(door: Door, ledger: Ledger, rng: Random) -> None:
    members = [partial(rows, 2, place) for place in door.transactions.values()]
    members += [partial(scan, place) for place in door.snapshots.values()]
    with contextlib.suppress(OnPurpose):
        await _together([_fail(rng), *(member(ledger, rng) for member in members)])


async def _fail(rng: Random) -> None:
    await a_moment(0.010, rng)
    raise OnPurpose


async def _limit(work: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Cancel ``work`` after ``seconds``, in the current task.

    Before Python 3.12, ``asyncio.wait_for`` runs it in a separate task, and leaves that behind if
    it is cancelled twice, which does not work for a connection that is used afterwards.
    """
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            await work
    else:
        await work


async def _together(members: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run a task group, also on Pythons without one; raise the first error of its members."""
    tasks = [asyncio.ensure_future(member) for member in members]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def raw(place: Place, ledger: Ledger, _rng: Random) -> None:
    """Insert the second row through the raw connection, in the same transaction."""
    token = ledger.token(parts=2)
    first, second = ledger.rows(token)
    async with place() as executor:
        await executor.execute(INSERT, first)
        connection = executor
        if isinstance(executor, AsyncSession):
            connection = await executor.connection()
        assert isinstance(connection, AsyncConnection)
        proxied = await connection.get_raw_connection()
        driver = proxied.driver_connection
        assert driver is not None
        near()
        cursor = await driver.execute("INSERT INTO entries VALUES (:token, :part, :parts)", second)
        await cursor.close()
    ledger.acknowledge(token)


async def disposed(engine: AsyncEngine, ledger: Ledger, _rng: Random) -> None:
    """Dispose of the engine while others use it; their connections keep working."""
    token = ledger.token(parts=2)
    first, second = ledger.rows(token)
    async with engine.begin() as connection:
        await connection.execute(INSERT, first)
        near()
        await engine.dispose()
        await connection.execute(INSERT, second)
    ledger.acknowledge(token)
