"""VACUUM, ANALYZE and similar statements, beside reads and after writes."""

from __future__ import annotations

import contextlib

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.real_programs.rebuilding import TABLES, begin_of_sqlite

from .doors import STOCK, SWAP_IN, Door, is_locked, outside
from .parameters import first


@pytest.mark.parametrize("sql", ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"])
async def test_maintenance_after_a_write_is_refused_by_name(writing: Door, sql: str) -> None:
    """The obstacle is the transaction, not a result that is still to be read."""
    app = await writing.open()
    async with app.enter() as connection:
        await connection.execute(text("CREATE TABLE item (i)"))
        with pytest.raises(OperationalError, match=r"has written .* commit or roll back first"):
            await connection.execute(text(sql))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM item") == 0


async def test_a_mistake_after_a_write_is_reported_as_one(writing: Door) -> None:
    """To commit first, as for a VACUUM that is valid, would not help."""
    app = await writing.open()
    async with app.enter() as connection:
        await connection.execute(text("CREATE TABLE item (i)"))
        with pytest.raises(OperationalError, match="syntax error") as raised:
            await connection.execute(text("VACUUM main 1"))
        assert "commit or roll back" not in str(raised.value)


_OTHERS = [
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_mode = WAL",
    "VACUUM",
    "PRAGMA wal_checkpoint(PASSIVE)",
]


@pytest.mark.parametrize("sql", first(3, _OTHERS))
async def test_others_work_after_a_read(changing: Door, sql: str) -> None:
    """Statements that SQLite refuses within a transaction run as on stock after a read."""
    app = await changing.open()
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text(sql))
        await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM parent") == 2
    assert not is_locked(app.path)


@pytest.mark.parametrize("sql", ["PRAGMA foreign_keys = OFF", "PRAGMA synchronous = FULL"])
async def test_attached_files_are_not_locked(writing: Door, sql: str) -> None:
    """The next transaction locks its own file, and none of another engine's."""
    app = await writing.open()
    await app.write(*TABLES)
    other = app.path.with_name("other.db")
    with outside(other) as creator:
        creator.execute("CREATE TABLE other (i)")
    async with app.enter() as connection:
        await connection.execute(text(f"ATTACH '{other}' AS other"))
        await connection.execute(text("SELECT * FROM other.other"))
        await connection.execute(text(sql))
        assert is_locked(app.path)
        assert not is_locked(other)
        await connection.rollback()


@pytest.mark.parametrize("door", [SWAP_IN], indirect=True)
@pytest.mark.parametrize("sql", ["PRAGMA foreign_keys = OFF", "PRAGMA synchronous = FULL"])
async def test_no_lock_without_the_turn(door: Door, sql: str) -> None:
    """A transaction in which the application begins to read remains a reading one."""
    app = await door.open(listen=begin_of_sqlite)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text(sql))
        assert not is_locked(app.path)
        await connection.rollback()


@pytest.mark.parametrize("sql", ["PRAGMA foreign_keys = OFF", "PRAGMA synchronous = FULL"])
async def test_the_turn_is_kept(writing: Door, sql: str) -> None:
    """A writer that has read still holds SQLite's lock afterwards."""
    app = await writing.open()
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        assert is_locked(app.path)
        await connection.execute(text(sql))
        assert is_locked(app.path)
        await connection.rollback()
    assert not is_locked(app.path)


async def test_what_asks_ends_nothing(writing: Door) -> None:
    """A query about a setting does not affect the transaction."""
    app = await writing.open()
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("DELETE FROM child"))
        for sql in ("PRAGMA foreign_keys", "PRAGMA synchronous", "PRAGMA journal_mode"):
            await connection.execute(text(sql))
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_a_vacuum_that_fails_leaves_the_connection_usable(writing: Door) -> None:
    """Later reads and writes are not taken for a transaction that SQLite has ended."""
    app = await writing.open()
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        with pytest.raises(OperationalError, match="unknown database"):
            await connection.execute(text("VACUUM nowhere"))
        await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM parent") == 2


async def test_it_fails_beside_a_stream_and_works_after_it(changing: Door) -> None:
    """The failed statement has written nothing, and is retried in the same block."""
    app = await changing.open()
    await app.write(*TABLES, *["INSERT INTO child VALUES (1)"] * 3)
    async with app.enter() as connection:
        stream = await connection.stream(text("SELECT * FROM child"))
        await stream.fetchone()
        with contextlib.suppress(OperationalError):  # an auto session streams from a reader
            await connection.execute(text("VACUUM"))
        await stream.close()
        await connection.execute(text("VACUUM"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.commit()


async def test_leaving_wal_fails_at_once(changing: Door) -> None:
    """Other connections of the pools are open, which no wait can end: SQLite's error is raised."""
    app = await changing.open()
    await app.write(*TABLES)
    async with app.reader.connect() as other:
        await other.execute(text("SELECT * FROM parent"))
        async with app.enter() as connection:
            message = "" if changing.stock else ": .* only while no other connection is open"
            with pytest.raises(OperationalError, match=f"database is locked{message}"):
                await connection.execute(text("PRAGMA journal_mode = DELETE"))
            await connection.rollback()


async def test_query_only_reads(changing: Door) -> None:
    """A writer that the application has made read-only reads, and its writes are refused."""
    app = await changing.open()
    await app.write(*TABLES)
    async with app.writer.connect() as connection:
        await connection.execute(text("PRAGMA query_only = ON"))
        assert await connection.scalar(text("SELECT count(*) FROM child")) == 1
        await connection.rollback()
        with pytest.raises(OperationalError, match="readonly"):
            await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.rollback()
        await connection.execute(text("PRAGMA query_only = OFF"))
        await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM parent") == 2


@pytest.mark.parametrize("before", ["SELECT 1", "CREATE TEMP TABLE item (i)", "SAVEPOINT s"])
async def test_statistics_without_a_commit(
    changing: Door, before: str, caplog: pytest.LogCaptureFixture
) -> None:
    """ANALYZE is kept where the stock driver keeps it; otherwise a warning says that it is not.

    A savepoint that is never released is rolled back everywhere.
    """
    app = await changing.open()
    await app.write(*TABLES, "CREATE INDEX of_child ON child (parent)", "ANALYZE")
    await app.write("DELETE FROM sqlite_stat1")
    async with app.writer.connect() as connection:
        await connection.execute(text(before))
        await connection.execute(text("ANALYZE"))
    kept = bool(await app.value("SELECT count(*) FROM sqlite_stat1"))
    as_stock = changing.stock or changing.kind == SWAP_IN
    assert kept == (as_stock and before != "SAVEPOINT s")
    assert as_stock or "ANALYZE parent on app.db was rolled back" in caplog.text
    assert not kept or not caplog.text


async def test_a_passive_checkpoint_waits_for_no_writer(door: Door) -> None:
    """A listener may execute one whenever a connection returns; SQLite's never waits either."""
    app = await door.open()
    await app.write(*TABLES)
    if door.kind not in {STOCK, SWAP_IN}:
        pytest.skip("another connection could not execute it: a reader may not, the writer is one")
    async with app.writer.connect() as holder:
        await holder.execute(text("INSERT INTO parent VALUES (2)"))
        for sql in ("PRAGMA wal_checkpoint", "PRAGMA main.wal_checkpoint(PASSIVE)"):
            async with app.writer.connect() as other:
                found = (await other.execute(text(sql))).mappings().one()
                assert list(found) == ["busy", "log", "checkpointed"]
                assert door.stock or dict(found) == {"busy": 1, "log": -1, "checkpointed": -1}
            async with app.writer.connect() as other:
                rows = await (await other.stream(text(sql))).all()
                assert len(rows) == 1
        await holder.commit()
    await app.write("INSERT INTO parent VALUES (3)")  # it has left no turn taken


async def test_a_passive_checkpoint_beside_no_writer(door: Door) -> None:
    """It moves the log, and has the turn for as long as it runs."""
    app = await door.open()
    await app.write(*TABLES)
    async with app.writer.connect() as connection:
        busy, log, moved = (await connection.execute(text("PRAGMA wal_checkpoint"))).one()
    assert (busy, log) == (0, moved)
    await app.write("INSERT INTO parent VALUES (3)")
    assert await app.value("SELECT count(*) FROM parent") == 2
