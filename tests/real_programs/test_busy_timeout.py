"""An application's PRAGMA busy_timeout reads back, and the event loop waits for no lock."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable
from typing import Any

import pytest
from sqlalchemy import event, text

from tests.cancelling import some_laps
from tests.helpers import until
from tests.waiting import pauses

from .doors import OURS, STOCK, Application, Door, Listen, outside
from .listeners import executing, in_the_driver
from .parameters import first

SPELLINGS = [
    "PRAGMA busy_timeout=1500",
    "PRAGMA busy_timeout = 1500;",
    "pragma Busy_Timeout(1500)",
    "PRAGMA main.busy_timeout = 1500",
    "PRAGMA busy_timeout = '1500'",
    'PRAGMA "busy_timeout" = 1500',
    "PRAGMA [busy_timeout] = +1500",
    "/* five */ PRAGMA busy_timeout = 1500 -- ms",
    "PRAGMA /* ms */ busy_timeout /* is */ = /* this */ 1500",
]
WAYS: dict[str, Listen] = {
    "in the driver": in_the_driver(lambda driver: driver.execute(SPELLINGS[0])),
    "at checkout": executing(SPELLINGS[0], on="checkout"),
    "at first connect": executing(SPELLINGS[0], on="first_connect"),
    "with other pragmas": executing(
        SPELLINGS[0], "PRAGMA synchronous=NORMAL", "PRAGMA journal_mode=WAL"
    ),
    **{spelling: executing(spelling) for spelling in SPELLINGS},
}
ways = pytest.mark.parametrize("listen", first(6, WAYS.values(), WAYS))


# Within two seconds; each would take 1.5 s if SQLite waited in it.
TRIES = 10


async def tried_again(work: Awaitable[Any], lock: sqlite3.Connection) -> bool:
    """Return whether ``work`` requests the lock repeatedly; then release the lock."""
    task = asyncio.ensure_future(work)
    with pauses() as found:
        await until(lambda: found.count >= TRIES or task.done())
    return await _ended(task, lock)


async def waits_in_a_thread(
    app: Application, work: Awaitable[Any], lock: sqlite3.Connection
) -> bool:
    """Return whether the loop runs while SQLite waits for the lock; then release the lock."""
    sent = asyncio.Event()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):
            sent.set()

    event.listen(app.writer.sync_engine, "before_cursor_execute", note)
    task = asyncio.ensure_future(work)
    await sent.wait()
    await some_laps()
    return await _ended(task, lock)


async def _ended(task: asyncio.Future[Any], lock: sqlite3.Connection) -> bool:
    waits = not task.done()
    lock.execute("ROLLBACK")
    await task
    return waits


async def waits(app: Application, work: Awaitable[Any], lock: sqlite3.Connection) -> bool:
    """Return whether the loop runs while ``work`` waits for the lock; then release the lock."""
    if app.kind == STOCK:
        return await waits_in_a_thread(app, work, lock)
    return await tried_again(work, lock)


@ways
async def test_it_reads_back(door: Door, listen: Listen) -> None:
    """The application reads the value that it has set."""
    app = await door.open(listen=listen)
    async with app.writer.connect() as connection:
        for ask in ("PRAGMA busy_timeout", "pragma main.busy_timeout"):
            assert (await connection.execute(text(ask))).scalar_one() == 1500


@ways
async def test_the_loop_goes_on_while_another_program_writes(door: Door, listen: Listen) -> None:
    """A write waits for the lock of another program, and the loop runs meanwhile."""
    app = await door.open(listen=listen, own={"write_timeout": 2.0})
    await app.write("CREATE TABLE t (x)")
    for _ in range(20):  # known to be short, so that it may run on the loop
        await app.write("INSERT INTO t VALUES (1)")
    with outside(app.path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await waits(app, app.write("INSERT INTO t VALUES (1)"), other)
    assert await app.value("SELECT count(*) FROM t") == 21


async def test_it_is_set_in_a_session(door: Door) -> None:
    """The same applies if it is set in the middle of the work."""
    app = await door.open(own={"write_timeout": 2.0})
    await app.write("CREATE TABLE t (x)")
    for _ in range(20):
        await app.write("INSERT INTO t VALUES (1)")
    await app.write("PRAGMA busy_timeout = 1500")

    async def write() -> None:
        async with app.writer.connect() as connection:
            await connection.execute(text("PRAGMA busy_timeout = 1500"))
            asked = await connection.execute(text("PRAGMA busy_timeout"))
            assert asked.scalar_one() == 1500
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.commit()

    with outside(app.path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await waits(app, write(), other)


async def test_it_is_set_on_the_raw_connection(door: Door) -> None:
    """The same applies through SQLAlchemy's access to the driver."""
    app = await door.open(own={"write_timeout": 2.0})
    await app.write("CREATE TABLE t (x)")
    for _ in range(20):
        await app.write("INSERT INTO t VALUES (1)")

    async def write() -> None:
        async with app.writer.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute("PRAGMA busy_timeout = 10000")
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.commit()

    with outside(app.path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await waits_in_a_thread(app, write(), other)


@pytest.mark.parametrize("door", OURS, indirect=True)
async def test_a_reader_without_wal(door: Door) -> None:
    """A rollback journal locks readers out while it is applied, and the loop runs meanwhile."""
    app = await door.open(
        listen=executing(SPELLINGS[0]),
        own={"read_timeout": 2.0, "pragmas": {"journal_mode": "TRUNCATE"}},
    )
    await app.write("CREATE TABLE t (x)")
    for _ in range(20):
        await app.value("SELECT count(*) FROM t")
    with outside(app.path) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert await waits(app, app.value("SELECT count(*) FROM t"), other)
