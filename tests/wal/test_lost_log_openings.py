"""Connections that are opened at the moment when a log is lost, and what is noted of a log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.files.open_files import open_files
from sa_sqlite_pool.wal.keeper import WalKeeper
from tests.helpers import amounts, create_items, write
from tests.wal.facade import said
from tests.wal.lasting import drop_locks, found, log_of, update_elsewhere
from tests.wal.others import OtherProcess
from tests.wal.test_lost_log import refused

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the system does not list all descriptors"
)


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, then: Callable[[], None]) -> None:
    """Call ``then`` after the next call of a method."""
    method = getattr(owner, name)

    def call(self: object, *args: object) -> object:
        monkeypatch.setattr(owner, name, method)
        result = method(self, *args)
        then()
        return result

    monkeypatch.setattr(owner, name, call)


def begin_another_log(other: OtherProcess) -> None:
    assert other.execute("CREATE TABLE others (id INTEGER PRIMARY KEY, text TEXT)") == "[]"
    for _ in range(20):
        other.execute("INSERT INTO others (text) VALUES (hex(zeroblob(3000)))")


@pytest.mark.usefixtures("no_lasting_locks")
async def test_lost_while_another_connection_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would read the new log by the index of the old one: "file is not a database"."""
    with ExitStack() as stack:
        db = await SQLiteDatabase(path, readers=2).open()
        await create_items(db.writer_engine)
        async with db.read() as first:
            await first.execute(text("SELECT * FROM items"))
            await write(db)  # for ``first``, this stays in the log that is lost

            def lose_log() -> None:
                drop_locks(path)
                update_elsewhere(path)
                begin_another_log(stack.enter_context(OtherProcess(path)))

            once(monkeypatch, type(open_files), "assert_may_open", lose_log)
            async with db.read() as second:
                read = second.execute(text("SELECT * FROM items"))
                await refused(read, "replaced by another file")
        await db.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_lost_while_the_first_connection_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """Whatever has the name of its log when that is noted, its commits would be lost."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
    with ExitStack() as stack:
        found_by_name = WalKeeper.connection_opened

        def lose_log_and_find(keeper: WalKeeper) -> None:
            monkeypatch.undo()
            drop_locks(path)
            update_elsewhere(path)
            if replaced:
                begin_another_log(stack.enter_context(OtherProcess(path)))
            found_by_name(keeper)

        monkeypatch.setattr(WalKeeper, "connection_opened", lose_log_and_find)
        await refused(db.open(), "replaced by another file" if replaced else "deleted")
        async with db:
            await write(db)
            assert (await amounts(db.reader_engine))[0] == found(path) == 2


# -- what is noted -------------------------------------------------------------------------------


async def test_a_log_that_another_process_keeps(path: Path) -> None:
    """When it is closed here, another file may have its inode number later; it is noted again."""
    real = os.path.realpath(path)
    db = SQLiteDatabase(path)
    with ExitStack() as stack:
        for term in range(3):
            async with db:
                if not term:
                    await create_items(db.writer_engine)
                    other = stack.enter_context(OtherProcess(path))
                    other.execute("SELECT * FROM items")
                assert real in open_files._logs
                await write(db)
                if term == 2:
                    log_of(path).unlink()
                    await refused(write(db))
            assert real not in open_files._logs


async def test_a_log_that_an_unknown_connection_keeps(path: Path) -> None:
    """As long as it does, a new connection would read a new log by the index of the old one."""
    db = SQLiteDatabase(path)
    async with db:
        await create_items(db.writer_engine)
        await write(db)
        unknown = sqlite3.connect(path)
        unknown.execute("SELECT * FROM items").fetchall()
    log_of(path).unlink()
    with closing(unknown):
        await refused(db.open())
    async with db:
        await write(db)
        assert (await amounts(db.reader_engine))[0] == found(path) == 2


async def test_a_log_of_which_nothing_is_lost(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another process removes it when this one has closed the database, and begins another."""
    db = SQLiteDatabase(path)
    for term in range(1, 4):
        with OtherProcess(path) as other:
            async with db:
                if term == 1:
                    await create_items(db.writer_engine)
                other.execute("SELECT * FROM items")
                await write(db)
        async with db:
            await write(db)
            assert (await amounts(db.reader_engine))[0] == 2 * term
    assert said(caplog) == []
