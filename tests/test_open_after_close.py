"""A closed database may be reopened: a module's database serves several tests in turn."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, bindparam, event, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from sa_sqlite_pool import CheckpointOutcome, DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.integrations.fastapi import lifespan
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.publishing.overview import look_at
from tests.closures.work import in_line
from tests.helpers import (
    UPDATE_FIRST,
    Item,
    amounts,
    create_items,
    files_beside,
    read,
    until,
    write,
)
from tests.test_closing import SharedLock


async def test_all_that_was_made_of_it_goes_on(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Engines, session makers, prepared reads and functions work in every term as in the first."""
    db = SQLiteDatabase(path, readers=2)
    own = async_sessionmaker(db.writer_engine)
    prepared = db.prepare(select(Item.amount).where(Item.id == bindparam("id")))
    async with db:
        await create_items(db.writer_engine)
        await write(db)
    assert files_beside(path) == {"app.db"}
    for term in range(2, 5):
        async with db:
            await write(db)
            async with own.begin() as session:
                await session.execute(text("UPDATE items SET amount = amount + 1 WHERE id = 2"))
            await db.run_write_core(Connection.execute, text("UPDATE items SET amount = 7"))
            await db.run_write_core(Connection.execute, UPDATE_FIRST)
            assert await db.run_read(lambda s: s.get_one(Item, 1).amount) == 8
            assert await prepared.scalar_one(id=1) == 8
            async with db.sessionmaker() as auto:
                auto.add(Item(id=10 * term))
                await auto.commit()
            assert await amounts(db.reader_engine) == [8, 7, 7, *[7] * (term - 2), 0]
            await db.backup(tmp_path_factory.mktemp("copies") / "copy.db")
            assert (await db.checkpoint("truncate")).outcome is CheckpointOutcome.TRUNCATED
            assert db.statistics().engine("writer").transactions.commits > 4 * (term - 1)
        assert files_beside(path) == {"app.db"}


def test_a_client_after_the_other(path: Path) -> None:
    """FastAPI's TestClient uses a module's database in a new loop each time."""
    db = SQLiteDatabase(path)
    app = FastAPI(lifespan=lifespan(db))

    @app.post("/items")
    async def add() -> int:
        async with db.write() as session:
            session.add(Item())
        async with db.read() as session:
            return await session.scalar(select(func.count()).select_from(Item)) or 0

    async def client(create: bool) -> int:
        async with app.router.lifespan_context(app):
            if create:
                await create_items(db.writer_engine)
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                added: int = (await http.post("/items")).json()
                return added

    assert [asyncio.run(client(create)) for create in (True, False, False)] == [4, 5, 6]


async def test_it_is_published_again(path: Path) -> None:
    """``sa-sqlite-pool status`` finds it while it is open, and not in between."""
    db = SQLiteDatabase(path)
    for _ in range(3):
        async with db:
            await until(lambda: look_at(str(path)).processes)  # a thread creates the socket
        assert look_at(str(path)).processes == ()


async def test_the_log_is_kept_again(path: Path) -> None:
    """keep_wal=True, for a replicator, applies to each term."""
    db = SQLiteDatabase(path, keep_wal=True)
    for number in range(2):
        async with db:
            if not number:
                await create_items(db.writer_engine)
            await write(db)
        assert files_beside(path) == {"app.db", "app.db-wal", "app.db-shm"}


async def test_what_was_counted_before(path: Path) -> None:
    """Counters only grow, including those of the turn and of checkpoints."""
    db = SQLiteDatabase(path)
    turns = []
    for number in range(3):
        async with db:
            if not number:
                await create_items(db.writer_engine)
            await write(db)
            await db.checkpoint()
            found = db.statistics()
            turns.append(found.turn.waits.at_once)
            assert found.engine("writer").waits.at_once == turns[-1]
            assert found.checkpoints is not None
            assert found.checkpoints.moved_all == number + 1
        gc.collect()
    assert turns[0] < turns[1] < turns[2]


KEYS = "CREATE TABLE children (id INTEGER PRIMARY KEY, item INTEGER REFERENCES items{})"


async def test_another_file_in_its_place(path: Path, tmp_path: Path) -> None:
    """Facts about the first file are not applied to the second, whatever its schema version."""
    db = SQLiteDatabase(path)
    async with db:
        await create_items(db.writer_engine)
    shutil.copy(path, other := tmp_path / "other.db")
    for file, deferred in ((path, ""), (other, " DEFERRABLE INITIALLY DEFERRED")):
        connection = sqlite3.connect(file)
        connection.execute(KEYS.format(deferred))
        connection.close()

    def adopt(connection: Connection, item: int) -> None:
        connection.execute(text("INSERT INTO children (item) VALUES (:item)"), {"item": item})

    calls = [partial(db.run_write_core, adopt, item) for item in (1, 77, 2)]
    for _ in range(2):
        async with db:
            first, second, third = await in_line(db, path, *calls)
        assert first is third is None
        assert isinstance(second, IntegrityError)
        os.replace(other, path) if other.exists() else None


async def test_work_that_was_closed_on(path: Path) -> None:
    """A waiting task got an error, and one in the middle has lost its connection for good."""
    db = SQLiteDatabase(path, readers=1, write_timeout=60)
    wrote, go_on = asyncio.Event(), asyncio.Event()

    async def in_the_middle() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            wrote.set()
            await go_on.wait()
            await session.execute(UPDATE_FIRST)

    await db.open()
    await create_items(db.writer_engine)
    kept = asyncio.create_task(in_the_middle())
    await wrote.wait()
    waiting = asyncio.create_task(write(db))
    await until(lambda: db.writer_engine.pool.turn.waiting == 1)  # type: ignore[attr-defined]
    await db.close(0)
    opening = asyncio.create_task(db.open())
    go_on.set()
    with pytest.raises(DatabaseClosedError):
        await waiting
    with pytest.raises(OperationalError, match=r"app\.db was closed"):
        await kept
    await opening  # it has waited for the turn
    await write(db)
    assert await amounts(db.reader_engine) == [1, 0, 0]
    await db.close()


async def test_opened_while_it_is_closed(path: Path) -> None:
    """The error says so, and the database can be opened afterwards."""
    db = await SQLiteDatabase(path).open()
    async with db.read() as session:
        await session.execute(text("SELECT 1"))
        closing = asyncio.create_task(db.close(60))
        await until(lambda: "closing" in repr(db))
        with pytest.raises(DatabaseClosedError, match="is being closed; open it again when"):
            await db.open()
    await closing
    async with db:
        await read(db)


@pytest.mark.parametrize("how", ["open", "close"])
def test_after_a_loop_that_ended_while_it_closed(path: Path, how: str) -> None:
    """The next loop finishes the closing, by ``close()`` or by ``open()``, and reopens it."""
    db = SQLiteDatabase(path)

    async def begin_to_close() -> None:
        await db.open()
        session = db.sessionmaker(role="reader")
        await session.execute(text("SELECT 1"))
        closing.append(asyncio.ensure_future(db.close(3600)))
        await until(lambda: "closing" in repr(db))
        held.append(session)

    async def go_on() -> None:
        assert "closing" in repr(db)
        if how == "close":
            await db.close()
        async with db:
            await create_items(db.writer_engine)

    held: list[object] = []
    closing: list[object] = []
    asyncio.run(begin_to_close())
    asyncio.run(go_on())


@pytest.mark.parametrize("laps", range(4))
def test_a_loop_that_has_stood_still_while_it_closed(path: Path, laps: int) -> None:
    """Another loop has finished the closing and reopened it; the first loop leaves it open.

    A test framework may have one loop for a module and one for each test, for example.
    """
    db, first = SQLiteDatabase(path, readers=1), asyncio.new_event_loop()
    sessions: list[AsyncSession] = []

    async def begin_to_close() -> None:
        await db.open()
        await create_items(db.writer_engine)
        session = db.sessionmaker(role="reader")
        await session.execute(text("SELECT 1"))
        sessions.append(session)
        asyncio.ensure_future(db.close(0.01))  # noqa: RUF006 - the loop ends with it
        for _ in range(laps):
            await asyncio.sleep(0)

    async def go_on_and_open() -> None:
        await db.close(0)
        await db.open()

    async def go_on() -> None:
        await sessions.pop().close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await task

    async def use() -> None:
        await write(db)
        assert await amounts(db.reader_engine) == [1, 0, 0]
        await db.close()

    first.run_until_complete(begin_to_close())
    assert "closing" in repr(db) or not laps
    second = asyncio.new_event_loop()
    second.run_until_complete(go_on_and_open())
    first.run_until_complete(go_on())
    second.run_until_complete(use())
    first.close()
    second.close()


async def test_two_threads_open_it_again_at_the_same_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them begins the new term while the other waits for it, and both find it open."""
    db = SQLiteDatabase(path)
    async with db:
        await create_items(db.writer_engine)
    admit, admitted = SQLiteDatabase._admit, []

    def wait_and_admit(self: SQLiteDatabase) -> None:
        admitted.append(self)
        assert lock.wanted.wait(10)
        admit(self)

    async def use() -> None:
        await db.open()
        await write(db)

    lock = db._changing = SharedLock()  # type: ignore[assignment]
    monkeypatch.setattr(SQLiteDatabase, "_admit", wait_and_admit)
    await asyncio.gather(*(asyncio.to_thread(asyncio.run, use()) for _ in range(2)))
    assert len(admitted) == 1
    assert await amounts(db.reader_engine) == [2, 0, 0]
    await db.close()


async def test_an_opening_that_fails_late(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clean-up does not affect the term that has begun meanwhile."""
    db = SQLiteDatabase(path)
    failing, go_on, opening = asyncio.Event(), asyncio.Event(), db._open_engines

    async def wait_and_fail() -> None:
        failing.set()
        await go_on.wait()
        raise ZeroDivisionError

    monkeypatch.setattr(db, "_open_engines", wait_and_fail)
    late = asyncio.create_task(db.open())
    await failing.wait()
    await db.close()
    monkeypatch.setattr(db, "_open_engines", opening)
    async with db:
        await create_items(db.writer_engine)
        at_rest = db.reader_engine.pool.at_rest  # type: ignore[attr-defined]
        go_on.set()
        with pytest.raises(DatabaseClosedError) as raised:
            await late
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        assert db.reader_engine.pool.at_rest == at_rest > 0  # type: ignore[attr-defined]


async def test_opened_while_one_that_comes_too_late_gives_its_connection_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is that the database was closed, even if it is open again when that is raised."""
    db = SQLiteDatabase(path)
    pool = db.reader_engine.pool
    assert isinstance(pool, FairPool)

    def close(*_: object) -> None:
        pool.refuse(lambda: DatabaseClosedError("it was closed"))

    def give_back_and_open(self: FairPool, record: ConnectionPoolEntry) -> None:
        give_back(self, record)
        pool.admit()

    async with db.writer_engine.connect():
        pass
    give_back = FairPool._put_back
    event.listen(db.reader_engine.sync_engine, "connect", close)
    monkeypatch.setattr(FairPool, "_put_back", give_back_and_open)
    with pytest.raises(DatabaseClosedError, match="it was closed"):
        await amounts(db.reader_engine)
    monkeypatch.undo()
    event.remove(db.reader_engine.sync_engine, "connect", close)
    async with db:
        await create_items(db.writer_engine)
