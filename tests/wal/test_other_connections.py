"""A log that others use, too: readers, writers, and programs that delete it or bypass it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.stats.log import CheckpointOutcome
from sa_sqlite_pool.wal import one_checkpoint, wal_warnings
from tests.helpers import until
from tests.wal.facade import HARD, SMALL, SOFT, add, count, log_size, pragma, said
from tests.wal.others import PACKAGE, OtherProcess

# Reaches the hard limit in one transaction.
LARGE = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) "
    "INSERT INTO t (data) SELECT zeroblob(4000) FROM n"
)
ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has locks"
)


@ON_LINUX
async def test_another_process_is_left_in_a_read_transaction(
    path: Path, small: SQLiteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Others continue; a warning names the process once; when it ends, the log shrinks again."""
    await add(small)
    with OtherProcess(path) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM t") == "[(1,)]"
        rows = 1
        while log_size(path) < 2 * HARD or not said(caplog):
            await add(small)
            rows += 1
            assert await count(small) == rows
            assert rows < 2000
        assert said(caplog) == [
            "the log of app.db cannot be truncated, although no reader of this process is in the "
            f"way: {other.name}; end its transaction"
        ]
        result = await small.checkpoint("truncate", timeout=5)
        assert (result.outcome.value, result.held_back_by) == ("held_back", other.name)
        wal = small.statistics().wal
        assert wal is not None
        assert wal.held_back_by == other.name
        assert other.execute("SELECT count(*) FROM t") == "[(1,)]"
        assert log_size(path) > HARD
    await until(lambda: log_size(path) < SOFT)
    assert await count(small) == rows
    assert len(said(caplog)) == 1


async def test_the_keeper_looks_again(path: Path, small: SQLiteDatabase) -> None:
    """It does so even without further commits: there was an obstacle, which then disappears."""
    keeper = small._keeper
    assert keeper is not None
    with OtherProcess(path) as other:
        await add(small, 8)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM t")
        await add(small, 8)
        assert SOFT < log_size(path) < HARD
        for _ in range(2):
            last = keeper.checkpointing.last
            await until(lambda: keeper.checkpointing.last is not last)  # noqa: B023
            assert keeper.checkpointing.last is not None
            assert keeper.checkpointing.last.outcome is CheckpointOutcome.HELD_BACK
    await until(lambda: log_size(path) < SOFT)
    assert await count(small) == 16


@ON_LINUX
async def test_each_time_somebody_is_in_the_way(
    path: Path, small: SQLiteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the log could be truncated, the next process that prevents it is named again."""
    await add(small)
    names = []
    for number in (1, 2):
        with OtherProcess(path) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM t")
            while len(said(caplog)) < number:
                await add(small)
                assert log_size(path) < 64 * HARD
            names.append(other.name)
        await until(lambda: log_size(path) < SOFT)
    found = said(caplog, "cannot be truncated")
    assert len(found) == len(said(caplog)) == 2
    assert all(name in one for name, one in zip(names, found, strict=True))


async def test_another_writer_comes_between(
    path: Path,
    small: SQLiteDatabase,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log is then truncated later; there was no obstacle, so no warning is logged."""
    monkeypatch.setattr(one_checkpoint, "has_reset_bug", lambda _: True)
    begin_anew = one_checkpoint._begin_anew
    came: list[CheckpointOutcome] = []

    def late(*arguments: Any) -> Any:
        if came:
            return begin_anew(*arguments)
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as other:
            other.execute("INSERT INTO t (data) VALUES (1)")
        numbers, outcome = begin_anew(*arguments)
        came.append(outcome)
        return numbers, outcome

    monkeypatch.setattr(one_checkpoint, "_begin_anew", late)
    rows = 0
    while not came:
        async with small.write() as session:
            await session.execute(LARGE)
        rows += 100
        assert rows < 10000
    await until(lambda: log_size(path) < SOFT)
    assert came == [CheckpointOutcome.MOVED_ALL]
    assert await count(small) == rows + 1
    assert said(caplog) == []


async def write_while(small: SQLiteDatabase, other: OtherProcess, begin: str) -> asyncio.Task[None]:
    """Return a write that has met the other's lock."""
    other.execute(begin)
    writing = asyncio.create_task(add(small))
    keeper = small._keeper
    assert keeper is not None
    await until(lambda: keeper.checkpointing._next_look_around)
    assert not writing.done()
    return writing


@ON_LINUX
@pytest.mark.parametrize("affected", [True, False])
async def test_another_program_writes(
    path: Path,
    small: SQLiteDatabase,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    affected: bool,
) -> None:
    """If SQLite can then lose commits, a single warning names the program; otherwise none does."""
    monkeypatch.setattr(wal_warnings, "has_reset_bug", lambda _: affected)
    with OtherProcess(path) as other:
        writing = await write_while(small, other, "BEGIN IMMEDIATE")
        await until(lambda: small.statistics().wal.outside_writers)  # type: ignore[union-attr]
        assert other.execute("COMMIT") == "[]"
        await writing
        assert small._keeper is not None
        small._keeper.meet_busy()  # as at each further try
        small._keeper.meet_busy()
        found = said(caplog)
        assert len(found) == int(affected)
        for one in found:
            assert f"app.db is also written by another program, {other.name}; SQLite" in one
            assert "https://www.sqlite.org/wal.html#walresetbug" in one
        wal = small.statistics().wal
        assert wal is not None
        assert wal.outside_writers == (other.name,)
    assert await count(small) == 1


@ON_LINUX
async def test_another_process_uses_the_package(
    path: Path,
    small: SQLiteDatabase,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They recognize each other, and no warning is logged."""
    monkeypatch.setattr(wal_warnings, "has_reset_bug", lambda _: True)
    with OtherProcess(path, PACKAGE) as other:
        writing = await write_while(small, other, "INSERT INTO t (data) VALUES (1)")
        assert small._keeper is not None
        small._keeper.checkpointing._next_look_around = 0.0
        small._keeper.meet_busy()  # one check is over before the other commits
        assert other.execute("commit") == "committed"
        await writing
        assert await count(small) == 2
    wal = small.statistics().wal
    assert wal is not None
    assert (wal.outside_writers, said(caplog)) == ((), [])


async def test_the_application_switches_the_log_off(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says so, everything works, and the next opening switches it on again."""
    async with SQLiteDatabase(path, wal=SMALL) as db:
        async with db.writer_engine.connect() as connection:
            await connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
            await connection.commit()
        await db.reader_engine.dispose()  # no other connection may exist
        assert await pragma(db, "journal_mode = DELETE") == "delete"
        await add(db, 3)
        assert said(caplog) == [
            "journal_mode of app.db was changed to delete, so readers and writers block each "
            "other; it is switched back when the writer's connection is reopened"
        ]
        assert await count(db) == 3
        await add(db, 100)
        assert (await db.checkpoint()).outcome.value == "not_wal"
        assert (await db.checkpoint("truncate")).outcome.value == "not_wal"
        wal = db.statistics().wal
        assert wal is not None
        assert (wal.size, wal.frames) == (0, 0)
        assert len(said(caplog)) == 1
    async with SQLiteDatabase(path, wal=SMALL) as db:
        assert await pragma(db, "journal_mode") == "wal"
        await add(db)
        assert await count(db) == 104
    assert len(said(caplog)) == 1


async def test_an_ordinary_life_says_nothing(
    path: Path, small: SQLiteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """The log is moved and truncated many times."""
    for _ in range(5):
        await add(small, 30)
        assert (await small.checkpoint("truncate")).outcome.value == "truncated"
    assert await count(small) == 150
    assert said(caplog) == []
