"""Each door acquires the turn between processes with SQLite's lock, and releases it with that."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ConfigurationError,
    ReaderPool,
    SQLiteDatabase,
    SQLitePool,
    WriterPool,
)
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.transactions import transaction, writing
from sa_sqlite_pool.wal.keeper import WalKeeper
from tests.doors.file_turns import engine, turn_waits
from tests.helpers import (
    UPDATE_FIRST,
    amounts,
    create_items,
    driver,
    turn_of,
    until,
    until_free,
)
from tests.turn.locks import Calls, calls, is_free, other_process, wait_until
from tests.turn.steps import Meanwhile, every_step

__all__ = ["calls", "engine"]


class TestCost:
    """The turn costs two system calls per write transaction, and none for reading."""

    async def test_a_transaction(self, engine: AsyncEngine, calls: Calls) -> None:
        """The cost is the same however many statements a transaction has."""
        for _ in range(3):
            before = calls.count
            async with engine.begin() as connection:
                await connection.execute(UPDATE_FIRST)
                await connection.execute(UPDATE_FIRST)
            assert calls.count == before + 2

    async def test_autocommit(self, engine: AsyncEngine, calls: Calls) -> None:
        """Each statement that writes counts as a transaction; one that reads does not."""
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            before = calls.count
            await connection.execute(UPDATE_FIRST)
            await connection.execute(UPDATE_FIRST)
            assert calls.count == before + 4
            await connection.execute(text("SELECT 1"))
            assert calls.count == before + 4

    async def test_reading(self, path: Path, make_engine: Any, calls: Calls) -> None:
        """Free readers: reads of a reader or swap-in pool never request the turn."""
        engines = [make_engine(SQLitePool), make_engine(ReaderPool)]
        await create_items(engines[0])
        for one in engines:
            await amounts(one)
        before = calls.count
        for one in engines:
            assert await amounts(one) == [0, 0, 0]
        assert calls.count == before

    async def test_switched_off(self, path: Path, make_engine: Any, calls: Calls) -> None:
        """With ``file_turn=False``, there are no calls and no files."""
        for kind in (SQLitePool, WriterPool):
            await create_items(make_engine(kind, file_turn=False), count=0)
        async with SQLiteDatabase(path, file_turn=False) as db, db.write() as session:
            await session.execute(text("CREATE TABLE t (id)"))
        assert calls.count == 0
        assert not os.path.exists(f"{path}-turn")

    async def test_wrong_value(self, path: Path) -> None:
        """An invalid value is refused at once."""
        with pytest.raises(ConfigurationError, match="file_turn must be True or False"):
            SQLiteDatabase(path, file_turn="no")  # type: ignore[arg-type]


class TestAsLongAsTheLock:
    """A checked-out connection that does not write keeps no other task waiting."""

    async def test_held_in_a_transaction(self, engine: AsyncEngine, path: Path) -> None:
        """The turn is held from the transaction's first write to its end."""
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
        """Transactions begun and ended in SQL are treated the same."""
        async with engine.connect() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            assert not is_free(path)
            await connection.exec_driver_sql(end)
            assert is_free(path)

    async def test_deferred_by_hand(self, make_engine: Any, path: Path) -> None:
        """BEGIN does not acquire the turn; the first write does."""
        engine = make_engine(SQLitePool)
        await create_items(engine)
        async with engine.connect() as connection:
            await connection.exec_driver_sql("BEGIN")
            assert is_free(path)
            await connection.execute(UPDATE_FIRST)
            assert not is_free(path)

    @pytest.mark.needs_thread
    async def test_given_back_in_the_thread(self, engine: AsyncEngine, path: Path) -> None:
        """The turn is released as soon as SQLite has committed, before the task is resumed."""
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            commit = asyncio.create_task(connection.commit())
            await asyncio.sleep(0)
            wait_until(lambda: is_free(path))  # the loop does not run meanwhile
            assert not commit.done()
            await commit

    async def test_an_error_in_a_transaction(self, engine: AsyncEngine, path: Path) -> None:
        """The turn is held until rollback; a statement that never began one holds nothing."""
        async with engine.connect() as connection:
            await connection.execute(UPDATE_FIRST)
            with pytest.raises(Exception, match="no such table"):
                await connection.execute(text("INSERT INTO missing VALUES (1)"))
            assert not is_free(path)
            await connection.rollback()
            assert is_free(path)

    async def test_maintenance(self, engine: AsyncEngine, path: Path) -> None:
        """VACUUM is not a transaction, but it writes the whole file, so it acquires the turn."""
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
        """The same applies to a statement that commits by itself."""
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            worker = (await driver(connection)).worker
            before = worker.hops
            statement = asyncio.create_task(connection.execute(UPDATE_FIRST))
            await until(lambda: worker.hops > before)
            wait_until(lambda: worker.at_rest)  # the loop does not run meanwhile
            assert is_free(path)
            assert not statement.done()
            await statement

    async def test_given_back_while_it_is_taken(self, make_engine: Any, path: Path) -> None:
        """A connection is discarded while its task acquires the turn: one of the two releases it.

        Thread       | Task
        _gone = True | acquires the turn
        let_go()     | if _gone: let_go()
        """
        engine = make_engine(WriterPool)
        await create_items(engine)
        connection = await engine.connect()
        raw = await driver(connection)
        used = raw.executor.transaction
        raw.give_up("it was closed", keep=False)
        await until(lambda: used._gone)

        def take() -> None:
            assert used.writing.begin_nowait(None)
            used.after_work()

        for step, note in every_step():
            used._gone = False
            with Meanwhile(transaction.__file__, step, take) as meanwhile:
                used.gone()
            note(meanwhile)
            assert is_free(path), step
        await connection.close()

    async def test_given_back_before_the_permit(self, engine: AsyncEngine, path: Path) -> None:
        """The permit's next holder takes the same lock, and must not lose it to the last one."""

        def act() -> None:
            assert turn.holder is not None or is_free(path)

        turn = turn_of(path)
        for step, note in every_step():
            async with engine.connect() as connection:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                used = (await driver(connection)).executor.transaction
                used.worker.connection.execute("ROLLBACK")
                with Meanwhile(writing.__file__, step, act) as meanwhile:
                    used.writing.end()
            note(meanwhile)
            assert is_free(path)

    async def test_a_leaked_transaction(self, engine: AsyncEngine, path: Path) -> None:
        """Other tasks continue once the transaction has been collected and rolled back."""

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
        """Safe checkpoints: a checkpoint runs in the turn between processes, too."""
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
