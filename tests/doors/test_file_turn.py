"""The doors take the turn between processes with SQLite's lock, and give it back with that."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SAWarning
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import (
    ConfigurationError,
    DatabaseClosedError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
    WriteTimeout,
)
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.transactions import locks, transaction, writing
from sa_sqlite_pool.turn import courtesy
from sa_sqlite_pool.turn.courtesy import Courtesy
from sa_sqlite_pool.turn.file_turn import Claim, FileTurn
from sa_sqlite_pool.wal import checkpointing
from sa_sqlite_pool.wal.keeper import WalKeeper
from tests.helpers import (
    UPDATE_FIRST,
    amounts,
    create_items,
    driver,
    turn_of,
    until,
    until_free,
    until_waiting,
)
from tests.turn.locks import Calls, blocked, calls, is_free, other_process, wait_until
from tests.turn.steps import Meanwhile, every_step

__all__ = ["calls"]
ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who waits"
)


@pytest.fixture(params=[SQLitePool, WriterPool])
async def engine(request: pytest.FixtureRequest, make_engine: Any) -> AsyncEngine:
    """Each kind that writes, with its connection open."""
    engine: AsyncEngine = make_engine(request.param, write_timeout=10.0)
    await create_items(engine)
    return engine


async def update(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(UPDATE_FIRST)


class Clock:
    """Seconds, ``later`` than they are."""

    def __init__(self) -> None:
        self.later = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.later


class TestCost:
    """Two system calls a write transaction, none for reading."""

    async def test_a_transaction(self, engine: AsyncEngine, calls: Calls) -> None:
        """However many statements it has."""
        for _ in range(3):
            before = calls.count
            async with engine.begin() as connection:
                await connection.execute(UPDATE_FIRST)
                await connection.execute(UPDATE_FIRST)
            assert calls.count == before + 2

    async def test_autocommit(self, engine: AsyncEngine, calls: Calls) -> None:
        """Each statement that writes is a transaction; one that reads is none."""
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            before = calls.count
            await connection.execute(UPDATE_FIRST)
            await connection.execute(UPDATE_FIRST)
            assert calls.count == before + 4
            await connection.execute(text("SELECT 1"))
            assert calls.count == before + 4

    async def test_reading(self, path: Path, make_engine: Any, calls: Calls) -> None:
        """Free readers: neither a reader's nor a swap-in pool's reads ask for the turn."""
        engines = [make_engine(SQLitePool), make_engine(ReaderPool)]
        await create_items(engines[0])
        for engine in engines:
            await amounts(engine)
        before = calls.count
        for engine in engines:
            assert await amounts(engine) == [0, 0, 0]
        assert calls.count == before

    async def test_switched_off(self, path: Path, make_engine: Any, calls: Calls) -> None:
        """``file_turn=False``: no call, and no files."""
        for kind in (SQLitePool, WriterPool):
            await create_items(make_engine(kind, file_turn=False), count=0)
        async with SQLiteDatabase(path, file_turn=False) as db, db.write() as session:
            await session.execute(text("CREATE TABLE t (id)"))
        assert calls.count == 0
        assert not os.path.exists(f"{path}-turn")

    async def test_wrong_value(self, path: Path) -> None:
        """Said at once."""
        with pytest.raises(ConfigurationError, match="file_turn must be True or False"):
            SQLiteDatabase(path, file_turn="no")  # type: ignore[arg-type]


class TestAsLongAsTheLock:
    """Nobody else waits for a connection that is checked out and writes nothing."""

    async def test_held_in_a_transaction(self, engine: AsyncEngine, path: Path) -> None:
        """From its first write to its end."""
        async with engine.connect() as connection:
            assert is_free(path)
            await connection.execute(UPDATE_FIRST)
            assert not is_free(path)
            await connection.commit()
            assert is_free(path)
            await connection.execute(UPDATE_FIRST)
            assert not is_free(path)
            await connection.rollback()
            assert is_free(path)

    @pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
    async def test_begun_and_ended_by_hand(self, engine: AsyncEngine, path: Path, end: str) -> None:
        """Transactions in SQL are no different."""
        async with engine.connect() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            assert not is_free(path)
            await connection.exec_driver_sql(end)
            assert is_free(path)

    async def test_deferred_by_hand(self, make_engine: Any, path: Path) -> None:
        """BEGIN takes no lock; the first write does."""
        engine = make_engine(SQLitePool)
        await create_items(engine)
        async with engine.connect() as connection:
            await connection.exec_driver_sql("BEGIN")
            assert is_free(path)
            await connection.execute(UPDATE_FIRST)
            assert not is_free(path)

    @pytest.mark.needs_thread
    async def test_given_back_in_the_thread(self, engine: AsyncEngine, path: Path) -> None:
        """As soon as SQLite has committed, before the task is told."""
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            commit = asyncio.create_task(connection.commit())
            await asyncio.sleep(0)
            wait_until(lambda: is_free(path))  # the loop does not go on
            assert not commit.done()
            await commit

    async def test_an_error_in_a_transaction(self, engine: AsyncEngine, path: Path) -> None:
        """It goes on until it is rolled back; a statement that never began it holds nothing."""
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            with pytest.raises(Exception, match="no such table"):
                await connection.execute(text("INSERT INTO missing VALUES (1)"))
            assert not is_free(path)
            await connection.rollback()
            assert is_free(path)

    async def test_maintenance(self, engine: AsyncEngine, path: Path) -> None:
        """VACUUM is no transaction, and writes everything."""
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            with other_process(path):
                vacuum = asyncio.create_task(connection.exec_driver_sql("VACUUM"))
                await until(lambda: turn_waits(path))
                assert not vacuum.done()
            await vacuum
            assert is_free(path)

    @pytest.mark.needs_thread
    async def test_given_back_in_the_thread_in_autocommit(
        self, engine: AsyncEngine, path: Path
    ) -> None:
        """The same for a statement that commits by itself."""
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            worker = (await driver(connection)).worker
            before = worker.hops
            statement = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await until(lambda: worker.hops > before)
            wait_until(lambda: worker.at_rest)  # the loop does not go on
            assert is_free(path)
            assert not statement.done()
            await statement

    async def test_given_back_while_it_is_taken(self, make_engine: Any, path: Path) -> None:
        """A connection has gone while its task gets the turn: one of both gives it back.

        Thread       | Task
        _gone = True | takes the turn
        let_go()     | if _gone: let_go()
        """
        engine = make_engine(WriterPool)
        await create_items(engine)
        connection = await engine.connect()
        raw = await driver(connection)
        used = raw._executor.transaction
        raw.give_up("it was closed", keep=False)
        await until(lambda: used._gone)

        def take() -> None:
            assert used.writing.begin_nowait()
            used.after_work()

        for step, note in every_step():
            used._gone = False
            with Meanwhile(transaction.__file__, step, take) as meanwhile:
                used.gone()
            note(meanwhile)
            assert is_free(path), step
        await connection.close()

    async def test_given_back_before_the_permit(self, engine: AsyncEngine, path: Path) -> None:
        """Who gets the permit next takes the same lock, and must not lose it to the last one."""

        def act() -> None:
            assert turn.holder is not None or is_free(path)

        turn = turn_of(path)
        for step, note in every_step():
            async with engine.connect() as connection:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                used = (await driver(connection))._executor.transaction
                used.worker.connection.execute("ROLLBACK")
                with Meanwhile(writing.__file__, step, act) as meanwhile:
                    used.writing.end()
            note(meanwhile)
            assert is_free(path)

    async def test_a_leaked_transaction(self, engine: AsyncEngine, path: Path) -> None:
        """Others go on once it is collected and rolled back."""

        async def leak() -> None:
            connection = await engine.connect()
            await connection.execute(UPDATE_FIRST)

        await leak()
        assert not is_free(path)
        with pytest.warns(SAWarning, match="checked out at"):
            gc.collect()
        await until(lambda: is_free(path))
        await until_free(path)

    async def test_tidying_up(self, path: Path) -> None:
        """The keeper leaves the log alone while another process writes."""
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine)
            keeper = keeper_of(db)
            async with keeper.checkpointing.connected():
                with other_process(path):
                    assert await keeper.checkpointing.tidy() is None
                assert await keeper.checkpointing.tidy() is not None
            assert is_free(path)

    async def test_a_checkpoint(self, path: Path) -> None:
        """Safe checkpoints: in the turn between processes, too."""
        async with SQLiteDatabase(path, write_timeout=10.0) as db:
            await create_items(db.writer_engine)
            with other_process(path):
                checkpoint = asyncio.create_task(db.checkpoint())
                await until(lambda: turn_waits(path))
                assert not checkpoint.done()
            assert (await checkpoint).moved > 0
            assert is_free(path)


def keeper_of(db: SQLiteDatabase) -> WalKeeper:
    assert isinstance(db.writer_engine.pool, FairPool)
    assert db.writer_engine.pool.keeper is not None
    return db.writer_engine.pool.keeper


def turn_waits(path: Path) -> bool:
    """Whether a task of this process waits for the file."""
    return turn_of(path)._file._waiting is not None


class TestWaiting:
    """Another process has the turn."""

    async def test_until_it_is_free(self, engine: AsyncEngine, path: Path) -> None:
        """The loop and readers go on meanwhile."""
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
            assert not task.done()
        await task
        assert is_free(path)

    async def test_in_line_here(self, engine: AsyncEngine, path: Path) -> None:
        """One of the process waits for the file, the others for that one; all are served."""
        with other_process(path):
            tasks = [asyncio.create_task(update(engine)) for _ in range(5)]
            await until_waiting(4, turn_of(path))
            await until(lambda: turn_waits(path))
        await asyncio.gather(*tasks)
        assert await amounts(engine) == [5, 0, 0]

    @ON_LINUX
    @pytest.mark.parametrize("count", [1, 3])
    async def test_between_two_writes_others_have_theirs(
        self, engine: AsyncEngine, path: Path, count: int
    ) -> None:
        """Fair turns: a process with a long line of its own passes the turn on all the same."""
        written: list[str] = []

        async def write(connection: AsyncConnection, name: str) -> None:
            await connection.execute(UPDATE_FIRST)
            written.append(name)
            await until(lambda: blocked(path, "turn"))  # the other one stands in line
            await connection.commit()

        async def one(name: str) -> None:
            async with engine.connect() as connection:
                await write(connection, name)

        turn_of(path)._file._clock = lambda: 100.0  # it has just had the turn, however slow this is
        other = FileTurn(str(path))
        claim = other.take_nowait()
        assert claim is not None
        tasks = [asyncio.create_task(one(str(number))) for number in range(count)]
        await until(lambda: blocked(path, "turn"))

        async def again(claim: Claim | None) -> None:
            assert claim is not None
            claim.give_back()
            for _ in range(count):
                claim = await other.wait(10.0)
                assert claim is not None
                written.append("other")
                await until(lambda: len(written) == 2 * count or blocked(path, "turn"))
                claim.give_back()

        await asyncio.gather(*tasks, again(claim))
        assert sorted(written[::2]) == [str(number) for number in range(count)]
        assert written[1::2] == ["other"] * count

    async def test_time_is_over(self, make_engine: Any, path: Path) -> None:
        """Clear waits: the process is named; nothing stays behind."""
        for kind in (SQLitePool, WriterPool):
            engine = make_engine(kind, write_timeout=0.05)
            await create_items(engine, count=0)
            with (
                other_process(path),
                pytest.raises(
                    WriteTimeout,
                    match=r"waited 0\.05 s to write to app\.db; another process holds the turn, "
                    r"0 more of this process in line; shorten the transaction there or raise",
                ),
            ):
                await update(engine)
            assert turn_of(path).holder is None
            await until(lambda: is_free(path))

    async def test_who_waits_behind_is_told(self, make_engine: Any, path: Path) -> None:
        """The task that has the turn here is not to blame, and the message says so."""
        patient, hasty = make_engine(WriterPool), make_engine(WriterPool, write_timeout=0.05)
        await create_items(patient)
        async with patient.connect() as connection:
            with other_process(path):
                first = asyncio.create_task(connection.execute(UPDATE_FIRST))
                await until(lambda: turn_waits(path))
                with pytest.raises(WriteTimeout, match="itself waiting for another process"):
                    await asyncio.create_task(update(hasty))
            await first
            with pytest.raises(WriteTimeout) as caught:
                await asyncio.create_task(update(hasty))
        assert "itself waiting" not in str(caught.value)

    async def test_both_waits_are_one(self, make_engine: Any, path: Path) -> None:
        """What was waited in line here is not waited for the file once more."""
        engine = make_engine(WriterPool, write_timeout=10.0)
        await create_items(engine)
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            second = asyncio.create_task(engine.connect().__aenter__())
            await until_waiting(1, turn_of(path))
        waited = await second
        holder = turn_of(path).holder
        assert holder is not None
        assert holder.seconds_waited > 0
        holder.seconds_waited = 10.0
        with other_process(path), pytest.raises(WriteTimeout, match=r"waited 10\.00 s"):
            await asyncio.wait_for(waited.execute(UPDATE_FIRST), 5)
        other = FileTurn(str(path))
        while (claim := other.take_nowait()) is None:  # its thread gives up what it waited for
            await asyncio.sleep(0)
        task = asyncio.create_task(waited.execute(UPDATE_FIRST))
        await until(lambda: turn_waits(path))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()  # the first wait counts once
        claim.give_back()
        await task
        await waited.close()

    async def test_both_waits_of_a_swap_in_connection(
        self, make_engine: Any, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same where the turn is taken by the statement."""
        clock = Clock()
        monkeypatch.setattr(locks, "time", clock)
        engine = make_engine(SQLitePool, write_timeout=10.0)
        await create_items(engine)
        await self.times_out(path, clock, update(engine))

    async def test_both_waits_of_a_checkpoint(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And for a checkpoint."""
        clock = Clock()
        async with SQLiteDatabase(path) as db:
            await create_items(db.writer_engine)
            monkeypatch.setattr(checkpointing, "time", clock)
            await self.times_out(path, clock, db.checkpoint(timeout=10.0))

    async def times_out(self, path: Path, clock: Clock, work: Any) -> None:
        """All its time is over when it gets the permit; another process has the file."""
        turn = turn_of(path)
        permit = await turn.acquire(1.0)
        task = asyncio.create_task(work)
        await until_waiting(1, turn)
        clock.later = 10.0
        with other_process(path):
            turn.release(permit)
            with pytest.raises(WriteTimeout, match=r"waited 10\.00 s"):
                await asyncio.wait_for(task, 5)

    async def test_cancelled(self, engine: AsyncEngine, path: Path) -> None:
        """Clean cancellation: no turn is taken, here or between processes."""
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert turn_of(path).holder is None
        await update(engine)
        assert await amounts(engine) == [1, 0, 0]

    async def test_closed(self, path: Path) -> None:
        """No hang: who waits for another process is sent away."""
        db = SQLiteDatabase(path, write_timeout=10.0)
        await db.open()
        await create_items(db.writer_engine)
        with other_process(path):
            task = asyncio.create_task(update(db.writer_engine))
            await until(lambda: turn_waits(path))
            await db.close()
            with pytest.raises(DatabaseClosedError):
                await task

    async def test_closed_in_line_here(self, engine: AsyncEngine, path: Path) -> None:
        """The same for those who wait behind a task of this process."""
        turn = turn_of(path)
        permit = await turn.acquire(1.0)
        task = asyncio.create_task(update(engine))
        await until_waiting(1, turn)
        assert isinstance(engine.pool, FairPool)
        engine.pool.refuse(lambda: DatabaseClosedError("it was closed"))
        with pytest.raises(DatabaseClosedError, match="it was closed"):
            await asyncio.wait_for(task, 5)
        turn.release(permit)

    async def test_closed_before_it_waits(self, path: Path) -> None:
        """No hang: nor who begins to wait while the database is being closed."""
        db = SQLiteDatabase(path, write_timeout=30.0)
        await db.open()
        await create_items(db.writer_engine)
        connection = await db.writer_engine.connect()
        closing = asyncio.create_task(db.close(0.05))
        await until(lambda: "closing" in repr(db))
        with other_process(path):
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await closing
            with pytest.raises((DatabaseClosedError, OperationalError), match="closed"):
                await asyncio.wait_for(task, 5)
        await connection.close()

    async def test_disposed_of(self, engine: AsyncEngine, path: Path) -> None:
        """``dispose()`` closes what is at rest: who waits is served."""
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
            await engine.dispose()
        await task
        assert await amounts(engine) == [1, 0, 0]
        assert is_free(path)

    async def test_taken_away(self, engine: AsyncEngine, path: Path) -> None:
        """A detached connection that is closed meanwhile: what comes then is given back.

        Nobody looks after it any more, so nobody else would.
        """
        turn = turn_of(path)
        async with engine.connect() as connection:
            (await connection.get_raw_connection()).detach()
            with other_process(path):
                task = asyncio.create_task(connection.execute(UPDATE_FIRST))
                await until(lambda: turn_waits(path))
                assert isinstance(engine.pool, FairPool)
                engine.pool.recall("it was closed")
            with pytest.raises(OperationalError, match="no active connection: it was closed"):
                await task
        await until(lambda: turn.holder is None)  # a thread gives it back
        await until(lambda: is_free(path))


class TestOutsiders:
    """A program that does not know the package has SQLite's lock."""

    @pytest.mark.needs_thread
    async def test_the_turn_is_kept_meanwhile(self, engine: AsyncEngine, path: Path) -> None:
        """Who tries again does so at its place in line: others stay behind it."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(update(engine))
        holder = None
        for _ in range(50):
            await until(lambda: turn_of(path).holder)
            holder = holder or turn_of(path).holder
            assert turn_of(path).holder is holder
            assert not is_free(path)
            await asyncio.sleep(0)
        outsider.execute("COMMIT")
        outsider.close()
        await task
        assert is_free(path)

    @pytest.mark.needs_thread
    async def test_success_at_the_next_try(self, engine: AsyncEngine, path: Path) -> None:
        """The turn was kept for that; it goes although the connection stays."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            held, worker = turn_of(path).holder, (await driver(connection)).worker
            before = worker.hops
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await until(lambda: worker.hops >= before + 2)
            outsider.close()
            await task
            assert turn_of(path).holder is held
            assert is_free(path)

    @pytest.mark.needs_thread
    async def test_an_error_at_the_next_try(self, engine: AsyncEngine, path: Path) -> None:
        """The turn was kept for that; it goes although the connection stays."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            held = turn_of(path).holder
            tries = (await driver(connection)).worker.hops
            task = asyncio.create_task(connection.execute(UPDATE_FIRST))
            raw = await driver(connection)
            await until(lambda: raw.worker.hops >= tries + 3)
            outsider.execute("DROP TABLE items")
            outsider.execute("COMMIT")
            outsider.close()
            with pytest.raises(OperationalError, match="no such table"):
                await task
            assert turn_of(path).holder is held
            assert is_free(path)

    async def test_files_that_were_removed(self, engine: AsyncEngine, path: Path) -> None:
        """Meeting another process at SQLite's lock, a writer looks, and lines up with it again."""
        await self.remove_files(path, update(engine))
        with other_process(path):
            task = asyncio.create_task(update(engine))
            await until(lambda: turn_waits(path))
        await task

    async def test_files_that_were_removed_before_a_checkpoint(self, path: Path) -> None:
        """A checkpoint looks, too."""
        async with SQLiteDatabase(path, write_timeout=10.0) as db:
            await create_items(db.writer_engine)
            await self.remove_files(path, db.checkpoint())

    async def remove_files(self, path: Path, work: Any) -> None:
        """Others lock new ones, and one of them writes. Wait for ``work`` to see that."""
        before = turn_of(path)._file._turn
        os.unlink(f"{path}-turn")
        with other_process(path):
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(work)
            await until(lambda: turn_of(path)._file._turn is not before)
            other.execute("COMMIT")
            other.close()
            await task

    async def test_giving_up(self, engine: AsyncEngine, path: Path) -> None:
        """A cancellation between two tries leaves nothing."""
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(update(engine))
        await until(lambda: turn_of(path).holder)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: turn_of(path).holder is None)
        await until(lambda: is_free(path))
        outsider.close()

    async def test_they_are_left_some_time(
        self, engine: AsyncEngine, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once one was met: with the turn in hand, so that nobody in line comes first."""
        monkeypatch.setattr(courtesy, "_LONGEST_SECONDS", 0.5)
        turn = turn_of(path)
        turn.courtesy.meet()
        turn.courtesy.hold(10.0)
        monkeypatch.setattr(Courtesy, "hold", lambda *_: None)  # what the update takes
        task = asyncio.create_task(update(engine))
        await until(lambda: not is_free(path))
        outsider = sqlite3.connect(path, isolation_level=None, timeout=0)
        outsider.execute("BEGIN IMMEDIATE")  # the lock is free
        outsider.execute("ROLLBACK")
        outsider.close()
        await task
        assert turn.courtesy.owed == 0.0
        assert is_free(path)

    async def test_a_cancellation_in_that_time(self, engine: AsyncEngine, path: Path) -> None:
        """Clean cancellation: the turn is given back."""
        turn = turn_of(path)
        turn.courtesy.meet()
        turn.courtesy.hold(10.0)
        task = asyncio.create_task(update(engine))
        await until(lambda: not is_free(path))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_free(path)
        await until(lambda: turn.holder is None)

    async def test_who_is_met_is_owed(self, engine: AsyncEngine, path: Path) -> None:
        """Meeting one is noted; what it takes counts for it, what is held here against."""
        turn = turn_of(path)
        outsider = sqlite3.connect(path, isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(update(engine))
        await until(lambda: turn.courtesy._balance < 0)
        outsider.execute("COMMIT")
        outsider.close()
        await task
        turn.courtesy._balance = 0.0
        await update(engine)
        assert turn.courtesy._balance > 0
