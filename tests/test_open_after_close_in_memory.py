"""A reopened in-memory database is a new one, alongside the remains of the first."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.pools.base import FairPool
from tests.helpers import amounts, create_items, until, write


async def test_one_in_memory_is_empty(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It is empty like SQLAlchemy's after ``dispose()``; each close removes its directory."""
    db = SQLiteDatabase(":memory:")
    for _ in range(3):
        async with db:
            await create_items(db.writer_engine)
            await write(db)
            assert await amounts(db.reader_engine) == [1, 0, 0]
            await db.backup(tmp_path_factory.mktemp("copies") / "copy.db")
            directory = Path(str(db.url.database)).parent
            assert directory.stat().st_mode & 0o777 == 0o700
        assert not directory.exists()


async def test_an_application_that_keeps_only_an_engine() -> None:
    """The engine keeps the database, as a stock engine does, and the directory goes with it."""
    engine = SQLiteDatabase(":memory:").writer_engine
    gc.collect()
    await create_items(engine)
    assert await amounts(engine) == [0, 0, 0]
    directory = Path(str(engine.url.database)).parent
    await engine.dispose()
    del engine
    gc.collect()
    assert not directory.exists()


async def test_a_directory_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised, and the database stays closed, until it can be opened."""
    db = SQLiteDatabase(":memory:")
    await db.open()
    await db.close()
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await db.open()
    assert "closed" in repr(db)
    monkeypatch.undo()
    async with db:
        await create_items(db.writer_engine)


@pytest.mark.parametrize("in_memory", [False, True])
async def test_beside_a_function_that_does_not_end(path: Path, in_memory: bool) -> None:
    """It has a connection from the previous term, to a file that is gone if it is in memory."""
    db = SQLiteDatabase(":memory:" if in_memory else path)
    inside, go_on = threading.Event(), threading.Event()

    def read_for_ever(session: Session) -> None:
        session.execute(text("SELECT 1"))
        inside.set()
        go_on.wait(10)

    await db.open()
    reading = asyncio.create_task(db.run_read(read_for_ever))
    await until(inside.is_set)
    await db.close(0)
    async with db:
        await create_items(db.writer_engine)
        go_on.set()
        with pytest.raises(sqlite3.OperationalError, match="was closed"):
            await reading
        assert await amounts(db.reader_engine) == [0, 0, 0]


async def test_an_opening_that_fails_because_it_closes(path: Path) -> None:
    """The task's error is that the database was closed, not that its directory is gone."""
    db = SQLiteDatabase(path)
    pool = db.reader_engine.pool
    assert isinstance(pool, FairPool)

    def close_and_fail(*_: object) -> None:
        pool.refuse(lambda: DatabaseClosedError("it was closed"))
        raise sqlite3.OperationalError("unable to open database file")

    async with db.writer_engine.connect():
        pass
    event.listen(db.reader_engine.sync_engine, "connect", close_and_fail)
    with pytest.raises(DatabaseClosedError, match="it was closed") as raised:
        await amounts(db.reader_engine)
    assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
    await db.close()


async def test_the_url_of_its_engines() -> None:
    """It names the database of this term, for what opens connections by it."""
    db = SQLiteDatabase(":memory:")
    for _ in range(2):
        async with db:
            await create_items(db.writer_engine)
            for engine in (db.writer_engine, db.reader_engine):
                connection = sqlite3.connect(str(engine.url.database))
                (count,) = connection.execute("SELECT count(*) FROM items").fetchone()
                connection.close()
                assert count == 3
