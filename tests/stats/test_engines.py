"""The statistics of engines: statements, transactions, connections, functions."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import bindparam, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import (
    ConfigurationError,
    DatabaseStatistics,
    ReadTimeout,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    WriteTimeout,
    statistics,
)
from tests.conftest import MakeEngine
from tests.helpers import ENDLESS, UPDATE_FIRST, Item, create_items, driver, until

READ = text("SELECT amount FROM items WHERE id = 1")


async def test_statements_and_where_they_ran(swap_in: AsyncEngine) -> None:
    """The first runs in a thread, the others on the loop, and each is counted once."""
    await create_items(swap_in)
    before = statistics(swap_in)
    async with swap_in.connect() as connection:
        for _ in range(10):
            await connection.execute(READ)
    done = (statistics(swap_in) - before).engine("auto").statements
    assert done.runs == 10
    assert done.in_thread >= 1
    assert 0 < done.longest_seconds <= done.seconds + before.engine("auto").statements.seconds
    (read,) = (one for one in done.slowest if one.sql == READ.text)
    assert read.runs == 10
    assert read.seconds == pytest.approx(done.seconds)


async def test_statements_that_fail(db: SQLiteDatabase) -> None:
    """Failures are counted once by every door, and appear in no other counter."""
    await create_items(db.writer_engine)
    before = db.statistics()
    insert = text("INSERT INTO items (id, amount) VALUES (1, 1)")
    wrong = text("SELECT nothing FROM nowhere")
    for _ in range(5):  # the last ones would run on the loop
        async with db.reader_engine.connect() as connection:
            await connection.execute(READ)
            with pytest.raises(OperationalError):
                await connection.execute(wrong)
        with pytest.raises(IntegrityError):
            async with db.writer_engine.begin() as connection:
                await connection.execute(insert)
        with pytest.raises(OperationalError):
            await db.run_read_core(lambda connection: connection.execute(wrong))
        with pytest.raises(IntegrityError):
            await db.run_write_core(lambda connection: connection.execute(insert) and None)
    done = db.statistics() - before
    reader, writer = done.engine("reader").statements, done.engine("writer").statements
    assert (reader.runs, reader.failed) == (5, 10)
    assert (writer.runs, writer.failed) == (0, 10)


@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_every_run_of_every_door(path: Path, placement: str) -> None:
    """Blocks, engines, functions and prepared reads are counted, wherever they run."""
    async with SQLiteDatabase(path, placement=placement) as db:
        await create_items(db.writer_engine)
        prepared = db.prepare(select(Item.amount).where(Item.id == bindparam("id")))
        before = db.statistics()
        for _ in range(6):
            async with db.read() as session:
                await session.execute(READ)
            async with db.reader_engine.connect() as connection:
                await connection.execute(READ)
            await db.run_read(lambda session: session.execute(READ).all())
            await db.run_read_core(lambda connection: connection.execute(READ).all())
            await prepared.one(id=1)
            async with db.write() as session:
                await session.execute(UPDATE_FIRST)
            async with db.writer_engine.begin() as connection:
                await connection.execute(UPDATE_FIRST)
            await db.run_write(lambda session: session.execute(UPDATE_FIRST) and None)
            await db.run_write_core(lambda connection: connection.execute(UPDATE_FIRST) and None)
        done = db.statistics() - before
        reader, writer = done.engine("reader"), done.engine("writer")
        assert (reader.statements.runs, writer.statements.runs) == (30, 24)
        assert writer.transactions.commits == 24
        assert writer.transactions.commit_seconds > 0
        assert reader.transactions.reads >= 24  # a prepared read's first runs count, too
        assert (done.functions.reads, done.functions.writes) == (12, 12)
        if placement == "thread":
            assert reader.statements.inline == writer.statements.inline == 0


async def test_a_read_that_is_stopped_on_the_loop(path: Path) -> None:
    """Such a statement is too long for the loop, and is counted once: in the thread."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        count = text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most)"
            " SELECT count(*) FROM n"
        )
        async with db.reader_engine.connect() as connection:
            for _ in range(3):
                await connection.execute(count, {"most": 2})
            before = db.statistics()
            await connection.execute(count, {"most": 50_000})
        done = (db.statistics() - before).engine("reader").statements
        assert (done.inline, done.in_thread, done.too_long_inline) == (0, 1, 1)


async def test_functions_that_share_a_commit(db: SQLiteDatabase) -> None:
    """A group is one transaction; the groups and the functions of the largest one are counted.

    There is usually one group. On a busy machine its time may run out, and the rest form another.
    """
    await create_items(db.writer_engine)
    before = db.statistics()
    function = lambda connection: connection.execute(UPDATE_FIRST) and None  # noqa: E731
    async with db.write() as session:  # they wait in line meanwhile
        await session.execute(UPDATE_FIRST)
        tasks = [asyncio.create_task(db.run_write_core(function)) for _ in range(7)]
        await until(lambda: db.writer_engine.pool.waiting)  # type: ignore[attr-defined]
    await asyncio.gather(*tasks)
    done = db.statistics() - before
    assert done.functions.writes == 7
    assert done.engine("writer").transactions.commits == 1 + done.functions.groups
    assert done.functions.largest_group * done.functions.groups >= 7 > done.functions.groups


async def test_functions_that_waited_too_long(path: Path) -> None:
    """They have their own counters; in the turn's line, a group that gives up is one wait."""
    async with SQLiteDatabase(path, write_timeout=0.0, read_timeout=0.0, readers=1) as db:
        await create_items(db.writer_engine)
        before = db.statistics()
        async with db.write() as writing, db.read() as reading:
            await writing.execute(UPDATE_FIRST)
            await reading.execute(READ)
            waiting = [db.run_write(lambda _: None) for _ in range(2)]
            waiting += [db.run_read(lambda _: None) for _ in range(3)]
            errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [WriteTimeout] * 2 + [ReadTimeout] * 3
        done = (db.statistics() - before).functions
        assert (done.writes_timed_out, done.reads_timed_out) == (2, 3)
        assert (done.writes, done.reads) == (0, 0)


async def test_transactions_by_their_end(swap_in: AsyncEngine) -> None:
    """COMMIT, ROLLBACK, AUTOCOMMIT, an end by text, and an end by SQLite itself are counted."""
    await create_items(swap_in)
    before = statistics(swap_in)
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.rollback()
        await connection.execute(UPDATE_FIRST)
        with pytest.raises(OperationalError):
            await connection.execute(text("INSERT INTO items (nothing) VALUES (1)"))
        await connection.exec_driver_sql("ROLLBACK")
    autocommit = swap_in.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(UPDATE_FIRST)
    done = (statistics(swap_in) - before).engine("auto").transactions
    assert (done.commits, done.rollbacks) == (2, 2)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        fails = text("INSERT OR ROLLBACK INTO items (id, amount) VALUES (1, 1)")
        with pytest.raises(IntegrityError):
            await connection.execute(fails)
    assert (statistics(swap_in) - before).engine("auto").transactions.lost == 1


@pytest.mark.parametrize(
    ("sql", "commits", "rollbacks"),
    [
        ("/* of a request */ ROLLBACK", 0, 1),
        ("-- of a report\nrollback transaction", 0, 1),
        ("/* ROLLBACK */ COMMIT", 1, 0),
        ("END", 1, 0),
    ],
)
async def test_transactions_by_their_end_in_a_text(
    swap_in: AsyncEngine, sql: str, commits: int, rollbacks: int
) -> None:
    """Texts with leading comments, or with optional words, are recognized, too."""
    await create_items(swap_in)
    before = statistics(swap_in)
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.exec_driver_sql(sql)
    done = (statistics(swap_in) - before).engine("auto").transactions
    assert (done.commits, done.rollbacks) == (commits, rollbacks)


async def test_connections(path: Path, make_engine: MakeEngine) -> None:
    """Open, on loan, at rest and ever opened: all are counted, even after ``dispose()``."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    async with engine.connect() as first, engine.connect() as second:
        await first.execute(READ)
        await second.execute(READ)
        now = statistics(engine).engine("auto")
        assert (now.connections.on_loan, now.connections.at_rest) == (2, 0)
        assert now.holders[0].seconds >= now.holders[1].seconds
    now = statistics(engine).engine("auto")
    assert (now.connections.on_loan, now.connections.at_rest) == (0, 2)
    assert (now.connections.opened, now.connections.checkouts) == (2, 3)
    await engine.dispose()
    after = statistics(engine).engine("auto")
    assert (after.connections.at_rest, after.connections.opened) == (0, 2)
    assert after.statements.runs == now.statements.runs
    assert after.waits == now.waits


async def test_connections_that_are_thrown_away(db: SQLiteDatabase) -> None:
    """A connection whose task was cancelled is sound, and is kept."""
    await create_items(db.writer_engine)

    async def read() -> None:
        async with db.reader_engine.connect() as connection:
            raw = await driver(connection)
            begun.append(raw)
            await connection.execute(ENDLESS)

    begun: list[object] = []
    task = asyncio.create_task(read())
    await until(lambda: begun)
    await until(lambda: db.statistics().reading)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: db.statistics().engine("reader").connections.kept_after_all)
    found = db.statistics().engine("reader").connections
    assert (found.thrown_away, found.kept_after_all, found.kept) == (1, 1, 1)


async def test_from_another_thread_while_the_loop_is_blocked(db: SQLiteDatabase) -> None:
    """Statistics are available when users most need them."""
    await create_items(db.writer_engine)
    found: list[DatabaseStatistics] = []
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        thread = threading.Thread(target=lambda: found.append(db.statistics()))
        thread.start()
        thread.join(30)  # blocks the loop
    (turn,) = (one.turn for one in found)
    assert turn.holder is not None
    assert (turn.holder.now_at or "").startswith("test_engines.py:")


async def test_an_engine_that_has_done_nothing(make_engine: MakeEngine) -> None:
    """Its statistics open no connection, and create no file."""
    engine = make_engine(SQLitePool)
    found = statistics(engine)
    assert found.engine("auto").connections.opened == 0
    assert not Path(str(engine.url.database)).exists()


async def test_engines_of_one_file_share_the_turn(make_engine: MakeEngine) -> None:
    """Engines of one file share nothing else."""
    one, other = make_engine(SQLitePool), make_engine(WriterPool)
    await create_items(one)
    async with other.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        assert statistics(one).turn.holder is not None
        assert statistics(one).turn.waits == statistics(other).turn.waits
    assert statistics(other).engine("writer").connections.checkouts == 1


def test_other_engines_are_refused(path: Path) -> None:
    """The error names what to use instead; the sync_engine of one of ours is accepted."""
    for engine in (
        create_engine(f"sqlite:///{path}"),
        create_async_engine(f"sqlite+aiosqlite:///{path}"),
    ):
        with pytest.raises(ConfigurationError, match="poolclass=SQLitePool"):
            statistics(engine)
    ours = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
    assert statistics(ours.sync_engine).engine("auto").role == "auto"


async def test_a_checkpoint_and_its_gap(db: SQLiteDatabase) -> None:
    """Checkpoints are counted by outcome, and a gap is counted when it ends."""
    await create_items(db.writer_engine)
    await db.checkpoint("truncate")
    found = db.statistics()
    assert found.checkpoints.truncated == 1
    assert found.gaps.gaps == 1
    assert found.gaps.longest_seconds == found.gaps.seconds > 0
    assert found.checkpoints.seconds >= found.checkpoints.longest_seconds > 0


async def test_listeners_count_as_what_they_run(swap_in: AsyncEngine) -> None:
    """A listener's statement is counted like any other."""
    await create_items(swap_in)

    @event.listens_for(swap_in.sync_engine, "begin")
    def begin(connection: object) -> None:
        connection.exec_driver_sql("SELECT 17")  # type: ignore[attr-defined]

    before = statistics(swap_in)
    async with swap_in.begin() as connection:
        await connection.execute(READ)
    assert (statistics(swap_in) - before).engine("auto").statements.runs == 2
