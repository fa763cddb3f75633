"""Functions that read and wait: their order, their readers, and what is separate for each."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from sa_sqlite_pool import ReadTimeout, SQLiteDatabase
from sa_sqlite_pool.closures import shared_reader
from sa_sqlite_pool.closures.read_group import ReadGroup
from sa_sqlite_pool.pools.impl import WriterPool
from tests.closures.work import Inside, cancelled, ids, waiting
from tests.helpers import ENDLESS, create_items, driver, until, until_waiting


def note(order: list[Any], name: object, _: Connection) -> None:
    order.append(name)


async def hops(db: SQLiteDatabase) -> Callable[[], int]:
    """Return a function for the number of hops of the reader that is lent next."""
    async with db.reader_engine.connect() as connection:
        worker = (await driver(connection)).worker
    return lambda: worker.hops


# -- order, and readers ---------------------------------------------------------------------------


async def test_in_order_of_arrival_in_one_hop(
    one: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting functions run one after the other, and share one hop."""
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)  # on a busy machine
    order: list[int] = []
    count = await hops(one)
    before = count()
    await waiting(one, *(partial(note, order, number) for number in range(30)))
    assert order == list(range(30))
    assert count() == before + 1


async def test_one_that_runs_long_holds_nobody_up(db: SQLiteDatabase) -> None:
    """Another reader takes over while it runs; the others begin in order of arrival."""
    order: list[str] = []
    slow = [Inside(), Inside()]
    tasks = [asyncio.ensure_future(db.run_read_core(slow[0]))]
    await slow[0].until_entered()
    tasks += [
        asyncio.ensure_future(db.run_read_core(fn))
        for fn in (lambda _: order.append("a"), slow[1], lambda _: order.append("b"))
    ]
    await tasks[1]
    await slow[1].until_entered()
    await tasks[3]
    assert order == ["a", "b"]
    for inside in slow:
        assert not inside.leave.is_set()
        inside.leave.set()
    await asyncio.gather(*tasks)


async def test_a_function_known_to_be_long(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another reader takes over at once, for waiting and for new calls."""
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)
    inside = Inside()
    for _ in range(2):
        db._closures._reads.long.note(inside, shared_reader.PATIENCE_SECONDS)
    slow = asyncio.ensure_future(db.run_read_core(inside))
    with_it = asyncio.ensure_future(db.run_read_core(ids))
    assert await with_it == [1, 2, 3]
    await inside.until_entered()
    assert await db.run_read_core(ids) == [1, 2, 3]
    inside.leave.set()
    await slow


async def test_outcomes_before_one_that_is_long(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished functions are reported although the next one, which is unknown, does not end."""
    monkeypatch.setattr(shared_reader, "TOGETHER_SECONDS", 1000.0)
    first, slow = Inside(), Inside()
    tasks = [asyncio.ensure_future(db.run_read_core(first))]
    await first.until_entered()
    tasks.append(asyncio.ensure_future(db.run_read_core(slow)))
    tasks.append(asyncio.ensure_future(db.run_read_core(ids)))
    await asyncio.sleep(0)
    first.leave.set()
    await tasks[0]
    slow.leave.set()
    await asyncio.gather(*tasks)


async def test_the_last_outcome_does_not_wait(
    one: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no other call waits, the previous one is reported before the last one begins."""
    monkeypatch.setattr(shared_reader, "TOGETHER_SECONDS", 1000.0)
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)
    first, last = Inside(), Inside()
    before = asyncio.ensure_future(one.run_read_core(first))
    await first.until_entered()
    after = asyncio.ensure_future(one.run_read_core(last))
    await asyncio.sleep(0)
    first.leave.set()
    await before
    last.leave.set()
    await after


async def test_a_task_that_waits_for_a_reader(
    one: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the reader after a while although functions wait, too, which join the line behind."""
    monkeypatch.setattr(shared_reader, "SLICE_SECONDS", 0.0)
    order: list[str] = []
    inside = Inside(lambda _: order.append("first"))
    tasks = [asyncio.ensure_future(one.run_read_core(inside))]
    await inside.until_entered()

    async def read() -> None:
        async with one.reader_engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            order.append("engine")

    tasks.append(asyncio.ensure_future(read()))
    pool = one.reader_engine.sync_engine.pool
    await until_waiting(1, pool)
    tasks += [asyncio.ensure_future(one.run_read_core(partial(note, order, n))) for n in "ab"]
    await asyncio.sleep(0)
    inside.leave.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "engine", "a", "b"]


async def test_readers_are_given_back(db: SQLiteDatabase) -> None:
    """It is returned as soon as no function waits, and nothing of the line remains."""
    await asyncio.gather(*(db.run_read_core(ids) for _ in range(50)))
    pool: Any = db.reader_engine.sync_engine.pool
    reads = db._closures._reads
    await until(lambda: not (pool.checkedout() or reads._groups))
    assert reads._last == {}


async def test_events_of_the_pool(one: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """They occur once for the functions that share a reader."""
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)
    told: list[str] = []
    pool = one.reader_engine.sync_engine.pool
    event.listen(pool, "checkout", lambda *_: told.append("checkout"))
    event.listen(pool, "checkin", lambda *_: told.append("checkin"))
    await waiting(one, *([ids] * 5))
    await until(lambda: told[-1] == "checkin")
    assert told == ["checkout", "checkin"]


async def test_a_pool_that_was_disposed_of(
    one: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader is returned to it, and the next functions use the new pool."""
    monkeypatch.setattr(shared_reader, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)
    told: list[str] = []
    event.listen(one.reader_engine.sync_engine.pool, "checkout", lambda *_: told.append("checkout"))
    inside = Inside()
    first = asyncio.ensure_future(one.run_read_core(inside))
    await inside.until_entered()
    await one.reader_engine.dispose()
    second = asyncio.ensure_future(one.run_read_core(ids))
    await asyncio.sleep(0)
    inside.leave.set()
    await first
    assert await second == [1, 2, 3]
    assert told == ["checkout"] * 2


# -- what is separate for each --------------------------------------------------------------------


async def test_one_that_waits_is_cancelled(one: SQLiteDatabase) -> None:
    """It never runs; the others do."""
    inside, never = Inside(), Inside()
    first = asyncio.ensure_future(one.run_read_core(inside))
    await inside.until_entered()
    tasks = [asyncio.ensure_future(one.run_read_core(fn)) for fn in (ids, never, ids)]
    await asyncio.sleep(0)
    assert await cancelled(tasks[1])
    inside.leave.set()
    assert await asyncio.gather(*tasks[::2], first) == [[1, 2, 3], [1, 2, 3], None]
    assert never.runs == 0


async def test_the_one_that_runs_is_cancelled(one: SQLiteDatabase) -> None:
    """Its statement is stopped, not that of the next one on its connection."""
    begun = threading.Event()

    def count(connection: Connection) -> None:
        begun.set()
        connection.execute(ENDLESS)

    task = asyncio.ensure_future(one.run_read_core(count))
    assert await asyncio.to_thread(begun.wait, 30)
    others = [asyncio.ensure_future(one.run_read_core(ids)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await cancelled(task)
    assert await asyncio.gather(*others) == [[1, 2, 3]] * 3


async def test_time_limits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own limit, starting from its call; the error names the task in the way."""
    async with SQLiteDatabase(path, readers=1, read_timeout=0.05) as db:
        await create_items(db.writer_engine)
        inside, never = Inside(), Inside()
        first = asyncio.create_task(db.run_read_core(inside), name="report")
        await inside.until_entered()
        early = asyncio.ensure_future(db.run_read_core(never))
        await asyncio.sleep(0)
        db._closures._reads.timeout = 30.0
        late = asyncio.ensure_future(db.run_read_core(ids))
        with pytest.raises(ReadTimeout, match=r"waited 0\.05 s .* held for .* by task 'report'"):
            await early
        assert not late.done()
        inside.leave.set()
        await first
        assert await late == [1, 2, 3]
        assert never.runs == 0


async def test_contexts(one: SQLiteDatabase) -> None:
    """Each runs in its caller's context, and changes no other."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    def change(_: Connection) -> None:
        seen.append(user.get())
        user.set("somebody")

    async def as_user(name: str) -> str:
        user.set(name)
        await one.run_read_core(change)
        return user.get()

    inside = Inside()
    first = asyncio.ensure_future(one.run_read_core(inside))
    await inside.until_entered()
    tasks = [asyncio.ensure_future(as_user(name)) for name in "abc"]
    await asyncio.sleep(0)
    inside.leave.set()
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert seen == ["a", "b", "c"]
    await first


async def test_snapshots(one: SQLiteDatabase) -> None:
    """Each sees the commits from before it began, even in the same hop."""

    def read(connection: Connection) -> int:
        return int(connection.scalar(text("SELECT amount FROM items WHERE id = 1")) or 0)

    def stay(connection: Connection) -> int:
        before = read(connection)
        inside(connection)
        assert read(connection) == before
        return before

    inside = Inside()
    first = asyncio.ensure_future(one.run_read_core(stay))
    await inside.until_entered()
    second = asyncio.ensure_future(one.run_read_core(read))
    await asyncio.sleep(0)
    async with one.write() as session:
        await session.execute(text("UPDATE items SET amount = 7 WHERE id = 1"))
    inside.leave.set()
    assert (await first, await second) == (0, 7)


async def test_errors(one: SQLiteDatabase) -> None:
    """A function that fails fails alone."""
    outcomes = await waiting(
        one,
        ids,
        lambda _: 1 / 0,
        lambda connection: connection.execute(text("SELECT nothing")),
        lambda connection: connection.execute(text("DELETE FROM items")),
        ids,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        *("list", "ZeroDivisionError", "OperationalError", "OperationalError", "list"),
    ]
    assert "cannot change a database" in str(outcomes[3])


async def test_a_gap_comes_between(one: SQLiteDatabase) -> None:
    """Waiting functions continue to wait while the log is emptied, and keep their order."""
    pool = one.writer_engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None
    order: list[str] = []
    inside = Inside()
    first = asyncio.ensure_future(one.run_read_core(inside))
    await inside.until_entered()
    with pool.keeper.snapshots.gap(30):
        tasks = [asyncio.ensure_future(one.run_read_core(partial(note, order, n))) for n in "abc"]
        await asyncio.sleep(0)
        inside.leave.set()
        await first
        readers: Any = one.reader_engine.sync_engine.pool
        await until(lambda: not readers.checkedout())
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c"]


async def test_a_gap_that_lasts_too_long(one: SQLiteDatabase) -> None:
    """The time-out names the obstacle."""
    pool = one.writer_engine.pool
    assert isinstance(pool, WriterPool)
    assert pool.keeper is not None
    assert await one.run_read_core(ids) == [1, 2, 3]  # opens the reader, which takes time
    reads = one._closures._reads
    with pool.keeper.snapshots.gap(30):
        waits = asyncio.ensure_future(one.run_read_core(ids))
        await until(lambda: reads.gap is not None)
        reads.timeout = 0.05
        with pytest.raises(ReadTimeout, match=r"waited 0\.05 s to read from app\.db.*log"):
            await one.run_read_core(ids)
        reads.timeout = 30.0
    assert await waits == await one.run_read_core(ids) == [1, 2, 3]
