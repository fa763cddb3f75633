"""A log that is deleted, or replaced by another, while connections of this process use it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool import DatabaseNotUsableError, SQLiteDatabase, SQLitePool
from sa_sqlite_pool.files.open_files import open_files
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, write
from tests.wal.facade import said
from tests.wal.lasting import drop_locks, found, log_of, update_elsewhere
from tests.wal.others import OtherProcess
from tests.wal.test_replaced import COMMITS, write_raw

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the system does not list all descriptors"
)

Commit = Callable[[SQLiteDatabase], Awaitable[None]]


async def refused(operation: Awaitable[object], what: str = "deleted") -> None:
    with pytest.raises(exc.OperationalError, match=f"[.]db-wal was {what} while") as raised:
        await operation
    assert isinstance(raised.value.orig, DatabaseNotUsableError)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
@pytest.mark.parametrize("commit", COMMITS)
async def test_a_commit_is_refused(
    path: Path, commit: Commit, placement: str, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be lost. What the deleted log has is moved, and the next commit has another.

    Also where COMMIT runs on the loop, as it does for a database that is old and warm.
    """
    monkeypatch.setattr("sa_sqlite_pool.wal.monitor._RECENT_NS", 0)
    async with SQLiteDatabase(path, placement=placement) as db:
        await create_items(db.writer_engine)
        for _ in range(1 + 20 * warm):
            await commit(db)
        log_of(path).unlink()
        await refused(commit(db))
        await commit(db)
        assert log_of(path).stat().st_size
        assert (await amounts(db.reader_engine))[0] == found(path) == 2 + 20 * warm


@pytest.mark.usefixtures("no_lasting_locks")
@pytest.mark.parametrize("again", [False, True])
async def test_the_locks_were_dropped(path: Path, again: bool) -> None:
    """The next program that closes the database removes the log that is in use here."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await write(db)
        drop_locks(path)
        for _ in range(1 + again):
            update_elsewhere(path)
        assert not log_of(path).exists()
        await refused(write(db))
        await write(db)
        assert (await amounts(db.reader_engine))[0] == found(path) == 3 + again


@pytest.mark.usefixtures("no_lasting_locks")
async def test_another_process_goes_on_with_another_log(path: Path) -> None:
    """What it commits meanwhile is kept."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await write(db)
        drop_locks(path)
        update_elsewhere(path)
        with OtherProcess(path) as other:
            assert other.execute(str(UPDATE_FIRST)) == "[]"
            await refused(write(db), "replaced by another file")
            await write(db)
            assert other.execute(str(UPDATE_FIRST)) == "[]"
            await write(db)
        assert (await amounts(db.reader_engine))[0] == found(path) == 6


async def test_a_pool(path: Path, make_engine: MakeEngine) -> None:
    """Of `SQLitePool`, all connections are closed."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    async with engine.begin() as connection, engine.connect() as reading:
        await reading.execute(text("SELECT * FROM items"))
        await connection.execute(UPDATE_FIRST)
    log_of(path).unlink()
    with pytest.raises(exc.OperationalError, match="was deleted while connections"):
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    assert (await amounts(engine))[0] == found(path) == 2


async def test_readers_that_are_out(path: Path) -> None:
    """They read on. No commit is let in until they end, and nothing of the old log is lost."""
    async with SQLiteDatabase(path, readers=2) as db:
        await create_items(db.writer_engine)
        await write(db)
        async with db.read() as session:
            assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 1
            log_of(path).unlink()
            for _ in range(2):
                await refused(write(db))
            assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 1
        await refused(write(db))
        await write(db)
        assert (await amounts(db.reader_engine))[0] == found(path) == 2


async def test_a_new_reader(path: Path) -> None:
    """It would read the new log by the index of the old one, so it waits until that is left."""
    async with SQLiteDatabase(path, readers=2) as db:
        await create_items(db.writer_engine)
        await write(db)
        async with db.read() as first:
            await first.execute(text("SELECT * FROM items"))
            log_of(path).unlink()
            async with db.read() as second:
                with pytest.raises(exc.OperationalError, match="until these are at rest"):
                    await second.execute(text("SELECT * FROM items"))
        await refused(write(db))
        await write(db)
        assert (await amounts(db.reader_engine))[0] == found(path) == 2


async def test_checkpoints_and_backups(path: Path) -> None:
    """They open connections by name; after the next write they work again."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await write(db)
        log_of(path).unlink()
        await refused(db.checkpoint("truncate"))
        await refused(db.backup(path.with_name("copy.db")))
        await refused(write(db))
        await write(db)
        await db.checkpoint("truncate")
        await db.backup(path.with_name("copy.db"))
        assert found(path.with_name("copy.db")) == found(path) == 2


async def test_commits_that_are_not_seen(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of the application itself on the raw connection: a warning says so, once."""
    async with SQLiteDatabase(path, placement="thread") as db:
        await create_items(db.writer_engine)
        log_of(path).unlink()
        for _ in range(3):
            await write_raw(db)
        assert said(caplog) == [
            "the log of app.db was deleted by another program while it was in use: commits "
            "made since then may be lost; stop all programs that use the database, make a copy of "
            "it, and check it"
        ]
        await refused(write(db))


# -- what is left of it --------------------------------------------------------------------------


async def test_nothing_is_kept_of_a_log_that_sqlite_has_removed(path: Path) -> None:
    """A program opens a database for each of its users, and closes it again."""
    real = os.path.realpath(path)
    for _ in range(2):
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine, 0)
            assert real in open_files._logs
        assert real not in open_files._logs


# -- what is innocent ----------------------------------------------------------------------------


async def test_the_log_of_an_engine_that_was_disposed_of(
    path: Path, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite has removed it, and the next one has another inode."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    for _ in range(3):
        await engine.dispose()
        log_of(path).write_bytes(b"")  # so that its inode is another one
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
    assert (await amounts(engine))[0] == 3
    assert said(caplog) == []


async def test_others_that_come_and_go(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the locks are there, a connection that is closed is not the last."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        for _ in range(3):
            update_elsewhere(path)
            await write(db)
            await db.checkpoint("truncate")
        os.link(path, path.with_name("link.db"))
        await write(db)
        assert (await amounts(db.reader_engine))[0] == 7
    assert said(caplog) == []
