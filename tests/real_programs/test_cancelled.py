"""A cancellation is never swallowed: a task that was cancelled is cancelled."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from sqlalchemy import event, text

from .doors import FACADE, STOCK, Application, Door, outside

STEPS = [*range(1, 9), 12, 20]


@pytest.fixture(autouse=True)
def what_stock_leaves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Free the remains of a cancelled stock engine, whose warnings would occur in the next test."""
    yield
    if request.node.callspec.params["door"] == STOCK:
        gc.collect()  # aiosqlite ends the threads of connections that are garbage
        for thread in threading.enumerate():
            if "_connection_worker_thread" in thread.name:
                thread.join(1)
        gc.collect()  # what these threads have opened


@asynccontextmanager
async def fresh(door: Door) -> AsyncIterator[Application]:
    """Return an application that has not connected yet."""
    app = door.make()
    try:
        yield app
    finally:
        await app.close()


def prepare(door: Door) -> None:
    with outside(door.path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")


async def cancel_after(work: Coroutine[Any, Any, Any], steps: int, computed: bytes) -> bool:
    """Cancel after this many steps of the loop and a computation; return if it was too late."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    # The application computes, while threads may finish their jobs. Nothing is
    # expected of the moment: the promise must hold at each.
    hashlib.sha256(computed)
    if not task.cancel():
        await task
        return True
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    return False


async def write(app: Application) -> None:
    async with app.writer.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))


async def read(app: Application) -> None:
    async with app.reader.connect() as connection:
        await connection.execute(text("SELECT * FROM t"))


async def in_a_session(app: Application) -> None:
    async with app.session() as session, session.begin():
        await session.execute(text("SELECT * FROM t"))
        await session.execute(text("INSERT INTO t VALUES (1)"))


async def open_facade(app: Application) -> None:
    await app.db.open()


PROGRAMS = [write, read, in_a_session]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("computed", [b"", bytes(4_000_000)], ids=["nothing", "4 MB"])
async def test_at_the_first_connection(
    door: Door, program: Callable[[Application], Coroutine[Any, Any, None]], computed: bytes
) -> None:
    """If cancelled while the first connection is opened, no row is written.

    A later cancellation may coincide with the COMMIT.
    """
    prepare(door)
    for steps in STEPS:
        async with fresh(door) as app:
            sent: list[str] = []
            event.listen(
                app.writer.sync_engine,
                "before_cursor_execute",
                lambda *args, sent=sent: sent.append(args[2]),
            )
            first = open_facade if door.kind == FACADE else program
            late = await cancel_after(first(app), steps, computed)
            if not late and not any(sql.startswith("INSERT") for sql in sent):
                with outside(door.path) as plain:
                    assert plain.execute("SELECT count(*) FROM t").fetchone() == (0,)
        # A thread may still be rolling back the cancelled work.
        with closing(sqlite3.connect(door.path, timeout=10, isolation_level=None)) as plain:
            plain.execute("DELETE FROM t")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("computed", [b"", bytes(4_000_000)], ids=["nothing", "4 MB"])
async def test_on_a_connection_that_is_open(
    door: Door, program: Callable[[Application], Coroutine[Any, Any, None]], computed: bytes
) -> None:
    """A task that is cancelled anywhere in its work ends so, and the next one works."""
    prepare(door)
    app = await door.open()
    await program(app)
    for steps in STEPS:
        await cancel_after(program(app), steps, computed)
    await asyncio.wait_for(program(app), 5)


async def test_a_time_out_of_the_applications(door: Door) -> None:
    """wait_for() around a long statement raises TimeoutError, and the connection stays usable."""
    app = await door.open()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) "
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(app.value(endless + "SELECT count(*) FROM n"), 0.05)
    assert await app.value("SELECT 1") == 1
