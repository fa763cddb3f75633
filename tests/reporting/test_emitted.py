"""Each event, logged where it occurs: its record has the right level and all its fields."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import sa_sqlite_pool
from sa_sqlite_pool import (
    DatabaseStatistics,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    restore,
)
from sa_sqlite_pool.files import site
from sa_sqlite_pool.integrations.live.history import History
from sa_sqlite_pool.reporting import events
from sa_sqlite_pool.reporting.events import Event
from sa_sqlite_pool.system import mounts
from sa_sqlite_pool.turn.waits import ObservedWait
from sa_sqlite_pool.wal import wal_warnings
from sa_sqlite_pool.wal.one_checkpoint import Checkpointer
from tests.helpers import create_items, turn_of, until_waiting
from tests.reporting.records import EVENTS, Records
from tests.turn.locks import Calls, calls
from tests.wal.facade import HARD, INSERT, SMALL, add, log_size, pragma
from tests.wal.gaps import fill, reading
from tests.wal.logs import create_blobs
from tests.wal.others import OtherProcess
from tests.wal.test_replaced import write_raw

__all__ = ["calls"]

PACKAGE = Path(sa_sqlite_pool.__file__).parent
TRUNCATE = {"journal_mode": "TRUNCATE"}

Program = Callable[[Path, Records, pytest.MonkeyPatch], Awaitable[None]]
PROGRAMS: dict[type[Event], Program] = {}


def emits(event: type[Event]) -> Callable[[Program], Program]:
    def register(program: Program) -> Program:
        PROGRAMS[event] = program
        return program

    return register


async def create(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)"))


# -- tasks -----------------------------------------------------------------------------------------


@emits(events.IdleTransaction)
async def idle(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, idle_warning=0.02) as db, db.write() as session:
        await session.execute(text("SELECT 1"))
        line = await records.until(events.IdleTransaction)
    assert (line["has_turn"], line["waiting"], line["sql"]) == (True, 0, "SELECT 1")


@emits(events.SlowWait)
async def wait(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, slow_wait_warning=0.0) as db:

        async def write() -> None:
            async with db.write() as session:
                await session.execute(text("SELECT 1"))

        async with db.write() as session:
            await session.execute(text("SELECT 1"))
            waiting = asyncio.create_task(write())
            await until_waiting(1, turn_of(path))
        await waiting


@emits(events.ObserverFailed)
async def fail_to_observe(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    def fail(_: ObservedWait) -> None:
        raise ValueError("no span")

    async with SQLiteDatabase(path, readers=1) as db:
        pool = db.reader_engine.pool
        assert isinstance(pool, ReaderPool)
        pool.wait_watch.observer = fail
        async with db.reader_engine.connect():
            waiting = asyncio.create_task(read(db))
            await until_waiting(1, pool)
        await waiting


async def read(db: SQLiteDatabase) -> None:
    async with db.reader_engine.connect():
        pass


@emits(events.StatisticsFailed)
async def fail_to_show(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    def fail() -> DatabaseStatistics:
        raise ValueError("no statistics")

    History("app.db", fail).sample(0.0)


@emits(events.SlowStatement)
async def statement(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, slow_statement_warning=0.0) as db, db.read() as session:
        await session.execute(text("SELECT 1"))


# -- acts of the application -----------------------------------------------------------------------


@emits(events.SchemaChangeUndone)
async def undo(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE t (i)"))
    await engine.dispose()


@emits(events.ForeignKeysRefused)
async def switch_keys_off(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=WriterPool)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await raw.execute("PRAGMA foreign_keys = OFF")
    await engine.dispose()


@emits(events.TimeoutNotUsed)
async def set_timeout(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    url, options = f"sqlite+aiosqlite:///{path}", {"connect_args": {"timeout": 5}}
    engine = create_async_engine(url, poolclass=SQLitePool, **options)
    async with engine.connect():
        pass
    await engine.dispose()


# -- the log ---------------------------------------------------------------------------------------


@emits(events.LogCannotShrink)
async def stay(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create_blobs(db.writer_engine)
        reader = await reading(db, long=True)
        await fill(db, path)
        line = await records.until(events.LogCannotShrink)
        await reader.end()
    assert (line["task"], line["declared_long"], line["log_bytes"] >= HARD) == (
        "report",
        True,
        True,
    )


@emits(events.ReadEnded)
async def grow_old(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, wal=replace(SMALL, max_snapshot_age=0.0)) as db:
        await create_blobs(db.writer_engine)
        async with db.read() as session:
            await session.execute(text("SELECT count(*) FROM blobs"))
            await fill(db, path)
            await records.until(events.ReadEnded)


@emits(events.CheckpointHeldBack)
async def hold_back(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create(db)
        await add(db)
        with OtherProcess(path) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM t")
            while not records.of(events.CheckpointHeldBack):
                await add(db)
                assert log_size(path) < 64 * HARD


@emits(events.CheckpointFailed)
async def fail(path: Path, records: Records, patch: pytest.MonkeyPatch) -> None:
    async def run(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create(db)
        patch.setattr(Checkpointer, "run", run)
        await add(db, 100)
        line = await records.until(events.CheckpointFailed)
        patch.undo()
    assert line["error"] == "disk I/O error"


@emits(events.DatabaseReplaced)
async def remove(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, placement="thread") as db:
        await create(db)
        path.unlink()
        async with db.writer_engine.connect() as connection:  # its own COMMIT is not refused
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.execute(str(INSERT))
            await raw.commit()


@emits(events.LogLookFailed)
async def break_look(path: Path, records: Records, patch: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, placement="thread") as db:
        await create(db)
        assert db._keeper is not None
        patch.setattr(db._keeper.monitor, "committed", lambda _: 1 / 0)
        await add(db)
        patch.undo()
    assert records.all[0].exc_info is not None


@emits(events.LogDeleted)
async def delete_log(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create_items(db.writer_engine)
        os.unlink(f"{path}-wal")
        await write_raw(db)


@emits(events.JournalModeChanged)
async def switch_log_off(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create(db)
        await db.reader_engine.dispose()
        assert await pragma(db, "journal_mode = DELETE") == "delete"
        await add(db)


@emits(events.OtherWriters)
async def meet_others(path: Path, records: Records, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wal_warnings, "has_reset_bug", lambda _: True)
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create(db)
        with OtherProcess(path) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(add(db))
            line = await records.until(events.OtherWriters)
            assert line["processes"] == [other.name]
            other.execute("COMMIT")
            await writing


# -- files -----------------------------------------------------------------------------------------


@emits(events.TurnNotLocked)
async def do_without_locks(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    async with SQLiteDatabase(path) as db:  # `calls` fail
        await create(db)


def _mounted(path: Path, patch: pytest.MonkeyPatch, mount: str) -> None:
    listing = path.parent.parent / f"{path.parent.name}-mountinfo"
    listing.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 {mount}\n")
    patch.setattr(mounts, "_MOUNTINFO", listing)
    patch.setattr(site, "_warned", set())


@emits(events.DoubtfulLocks)
async def use_nfs(path: Path, records: Records, patch: pytest.MonkeyPatch) -> None:
    _mounted(path, patch, f"0:9 / {path.parent} rw - nfs4 nas:/home rw")
    async with SQLiteDatabase(path, pragmas=TRUNCATE):
        pass


@emits(events.MountedAlone)
async def mount_alone(path: Path, records: Records, patch: pytest.MonkeyPatch) -> None:
    path.touch()
    _mounted(path, patch, f"8:1 /app.db {path} rw - ext4 /dev/sda1 rw")
    async with SQLiteDatabase(path):
        pass
    assert records.of(events.MountedAlone)[0]["mount_point"] == str(path)


@emits(events.DamagedDatabaseKept)
async def restore_damaged(path: Path, records: Records, _: pytest.MonkeyPatch) -> None:
    backup = path.with_name("backup.db")
    async with SQLiteDatabase(path) as db:
        await create(db)
        await db.backup(backup)
    path.write_bytes(b"\xff" * 4096)
    await restore(backup, path)


# -- all of them -----------------------------------------------------------------------------------


# These need a server: tests/servers/test_events.py.
OF_SERVERS = {events.ReplicaDown, events.ReplicaUp, events.CommitCancelled}


def test_all_are_here() -> None:
    """A new event needs a program."""
    assert set(PROGRAMS) == set(EVENTS) - OF_SERVERS


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not tell")
@pytest.mark.parametrize("event", PROGRAMS, ids=lambda event: event.name)
async def test_emitted(
    path: Path,
    records: Records,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    event: type[Event],
) -> None:
    """It is logged once, by a module of the package, and any formatter can write it as JSON."""
    if event is events.TurnNotLocked:
        calls.fail = OSError(errno.ENOLCK, "No locks available")
    await PROGRAMS[event](path, records, monkeypatch)
    (line,) = records.of(event)
    (record,) = (one for one in records.all if vars(one)["event"] == event.name)
    assert line.keys() == {"message", "event", *(field.name for field in fields(event))}
    assert line["database"] == "app.db"
    assert (record.name, record.levelno) == ("sa_sqlite_pool", event.level)
    assert Path(record.pathname).is_relative_to(PACKAGE)
    assert Path(record.pathname) != Path(events.__file__)
    assert record.levelno in {logging.WARNING, logging.ERROR}
