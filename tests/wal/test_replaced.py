"""A database that is deleted, moved away or replaced while it is open."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import DatabaseNotUsableError, SQLiteDatabase, SQLitePool, WalSettings
from sa_sqlite_pool.files.open_files import open_files
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, until, write

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files in use cannot be moved there")


def another(path: Path) -> bytes:
    """Put another database in its place, as `mv` does; return its content."""
    beside = path.with_name("new.db")
    with closing(sqlite3.connect(beside)) as connection:
        connection.execute("CREATE TABLE other (a)")
    content = beside.read_bytes()
    beside.replace(path)
    return content


async def refused(db: SQLiteDatabase, why: str) -> None:
    for mode in ("passive", "truncate"):
        with pytest.raises(exc.OperationalError, match=f"[.]db was {why}") as raised:
            await db.checkpoint(mode)
        assert isinstance(raised.value.orig, DatabaseNotUsableError)


async def write_raw(db: SQLiteDatabase) -> None:
    """Commit as the application does on the raw connection, on its own."""
    async with db.writer_engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await raw.execute(str(UPDATE_FIRST))
        await raw.commit()


async def test_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The old log is not moved into it. A commit reports this once, and so does a checkpoint."""
    async with SQLiteDatabase(path, placement="thread") as db:
        await create_items(db.writer_engine)
        content = another(path)
        for _ in range(3):
            await write_raw(db)
        [record] = [r for r in caplog.records if r.name == "sa_sqlite_pool"]
        assert "app.db was replaced by another file while it was open" in record.getMessage()
        await refused(db, "replaced by another file")
        assert path.read_bytes() == content
    assert path.read_bytes() == content


async def test_deleted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No new file is created in its place."""
    async with SQLiteDatabase(path, placement="thread") as db:
        await create_items(db.writer_engine)
        path.unlink()
        await write_raw(db)
        assert "app.db was deleted while it was open" in caplog.text
        await refused(db, "deleted")
        assert not path.exists()
    caplog.clear()


async def in_a_session(db: SQLiteDatabase) -> None:
    async with db.sessionmaker() as session, session.begin():
        await session.execute(UPDATE_FIRST)


async def in_autocommit(db: SQLiteDatabase) -> None:
    engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)


async def by_text(db: SQLiteDatabase) -> None:
    async with db.writer_engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.execute(text("COMMIT"))


async def by_a_savepoint(db: SQLiteDatabase) -> None:
    """Releasing the outermost savepoint is a COMMIT, if it has begun the transaction."""
    engine = db.writer_engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("SAVEPOINT a"))
        await connection.execute(UPDATE_FIRST)
        await connection.execute(text("RELEASE a"))


async def in_a_function(db: SQLiteDatabase) -> None:
    await db.run_write_core(lambda connection: connection.execute(UPDATE_FIRST))


COMMITS = [write, in_a_session, in_autocommit, by_text, by_a_savepoint, in_a_function]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
@pytest.mark.parametrize("commit", COMMITS)
async def test_a_commit_is_refused(
    path: Path, commit: Callable[[SQLiteDatabase], Awaitable[None]], placement: str, warm: bool
) -> None:
    """Its rows would be unreachable. Without a log, SQLite refuses it, as on stock."""
    away = path.with_name("away.db")
    async with SQLiteDatabase(path, placement=placement) as db:
        await create_items(db.writer_engine)
        for _ in range(20 * warm):  # then it is known to be short, and runs on the loop
            await commit(db)
        path.rename(away)
        with pytest.raises(exc.OperationalError, match=r"app\.db was deleted while") as raised:
            await commit(db)
        assert isinstance(raised.value.orig, DatabaseNotUsableError)
        async with db.read() as session:
            assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 20 * warm
        away.rename(path)
        await commit(db)
        assert (await amounts(db.reader_engine))[0] == 20 * warm + 1


async def test_put_back(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everything works again, and nothing is lost."""
    away = path.with_name("away.db")
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        path.rename(away)
        await refused(db, "deleted")
        away.rename(path)
        await write(db)
        await db.checkpoint("truncate")
        assert await amounts(db.reader_engine) == [1, 0, 0]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT amount FROM items WHERE id = 1").fetchone() == (1,)


async def test_the_keeper(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It reports it and moves nothing, neither in its own turn nor right after a commit."""
    limits = WalSettings(soft_limit=1, hard_limit=1)
    async with SQLiteDatabase(path, placement="thread", wal=limits) as db:
        await create_items(db.writer_engine)
        assert db._keeper is not None
        await db._keeper.stop()
        content = another(path)
        for _ in range(3):
            await write_raw(db)
        keeper = db._keeper
        await until(lambda: not keeper._task_runs())
        messages = [r.getMessage() for r in caplog.records if r.name == "sa_sqlite_pool"]
        assert len(messages) == 1
        assert "replaced by another file" in messages[0]
        assert path.read_bytes() == content


async def test_a_checkpoint_that_has_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may disappear while it waits for its turn."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        assert db._keeper is not None
        turn = db._keeper.checkpointing._turn
        acquire = turn.acquire

        async def acquire_late(*arguments: object, **options: object) -> object:
            if path.exists():
                path.unlink()
            return await acquire(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(turn, "acquire", acquire_late)
        await refused(db, "deleted")
        assert not path.exists()


def connections_to(path: Path) -> int:
    return sum(file.path == str(path) for file in open_files._files.values())


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_backup(path: Path, replaced: bool) -> None:
    """It would be a backup of another file."""
    copy = path.with_name("copy.db")
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        if replaced:
            another(path)
        else:
            path.unlink()
        with pytest.raises(exc.OperationalError, match=r"app\.db was (deleted|replaced)") as raised:
            await db.backup(copy)
        assert isinstance(raised.value.orig, DatabaseNotUsableError)
        assert not copy.exists()
        # The way out that the documentation names.
        async with db.writer_engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            with closing(sqlite3.connect(copy, check_same_thread=False)) as target:
                await raw.backup(target)
                assert target.execute("SELECT count(*) FROM items").fetchone() == (3,)


# -- harmless cases ------------------------------------------------------------------------------


async def test_replaced_while_nothing_is_open(path: Path, make_engine: MakeEngine) -> None:
    """An engine continues with the file that it finds, as does the keeper of the old one."""
    engine: AsyncEngine = make_engine(SQLitePool)
    await create_items(engine)
    assert isinstance(engine.pool, FairPool)
    keeper = engine.pool.keeper
    assert keeper is not None
    await engine.dispose()
    await until(lambda: connections_to(path) == 0)
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").replace(path)
    async with SQLiteDatabase(path) as db:
        assert db._keeper is keeper
        await write(db)
        await db.checkpoint("truncate")
        assert await amounts(db.reader_engine) == [1, 0, 0]


async def test_written_by_others(db: SQLiteDatabase, path: Path) -> None:
    """After VACUUM, other connections, permissions, or a link, it is still the same file."""
    await create_items(db.writer_engine)
    path.chmod(0o600)
    os.link(path, path.with_name("link.db"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("UPDATE items SET amount = 7 WHERE id = 1")
    await write(db)
    await db.checkpoint("truncate")
    async with db.read() as session:
        assert await session.scalar(text("SELECT amount FROM items WHERE id = 1")) == 8


@pytest.mark.parametrize("placement", ["auto", "thread"])
async def test_out_of_reach(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, placement: str
) -> None:
    """Without privileges, or with a server away, there is no evidence that the file has gone."""
    stat = os.stat

    def refused_stat(file: Any, *arguments: Any, **options: Any) -> Any:
        if str(file).startswith(str(path)):
            raise PermissionError(13, "Permission denied", str(file))
        return stat(file, *arguments, **options)

    async with SQLiteDatabase(path, placement=placement) as db:
        await create_items(db.writer_engine)
        monkeypatch.setattr(os, "stat", refused_stat)
        for commit in COMMITS * 5:
            await commit(db)
        monkeypatch.undo()
        assert (await amounts(db.reader_engine))[0] == 5 * len(COMMITS)
        await db.checkpoint("truncate")
    assert not [r for r in caplog.records if r.name == "sa_sqlite_pool"]


async def test_another_database_is_replaced(db: SQLiteDatabase, path: Path) -> None:
    """Each file is examined separately."""
    await create_items(db.writer_engine)
    other = path.with_name("other.db")
    async with SQLiteDatabase(other) as second:
        await create_items(second.writer_engine)
        other.unlink()
        await db.checkpoint("truncate")
        await refused(second, "deleted")


async def test_closed_connections_are_forgotten(db: SQLiteDatabase, path: Path) -> None:
    """Connections for checkpoints are included."""
    await create_items(db.writer_engine)
    before = connections_to(path)
    await db.checkpoint()
    assert connections_to(path) == before > 0
    await db.close()
    assert connections_to(path) == 0
