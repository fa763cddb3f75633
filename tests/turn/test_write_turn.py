"""The write turn of a file."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import sqlalchemy.exc

from sa_sqlite_pool import TurnAlreadyHeldError, TurnStatistics, WriteTimeout
from sa_sqlite_pool.turn import fair_semaphore
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.helpers import turn_of, until_waiting


async def test_the_same_task_asking_twice_is_refused_at_once() -> None:
    """The task would wait for itself; the message says what to do instead."""
    turn = turn_of(Path("/data/app.db"))
    permit = await turn.acquire(1)
    with pytest.raises(TurnAlreadyHeldError, match=r"already holds.*write through the session"):
        await turn.acquire(1)
    turn.release(permit)


async def test_the_time_out_names_the_holder_and_the_remedy() -> None:
    """Clear waits: the error also has a class that applications already catch."""
    turn = turn_of(Path("/data/app.db"))
    entered, done = asyncio.Event(), asyncio.Event()

    async def holder() -> None:
        permit = await turn.acquire(1)
        permit.last_sql = "INSERT INTO items DEFAULT VALUES"
        entered.set()
        await done.wait()
        turn.release(permit)

    task = asyncio.create_task(holder(), name="import-42")
    await entered.wait()
    with pytest.raises(sqlalchemy.exc.TimeoutError) as caught:
        await turn.acquire(0.01)
    assert isinstance(caught.value, WriteTimeout)
    assert re.fullmatch(
        r"waited 0\.01 s to write to app\.db; the turn has been held for 0\.\d s by task "
        r"'import-42' \(now at test_write_turn\.py:\d+, last SQL: INSERT INTO items DEFAULT "
        r"VALUES\), "
        r"0 more waiting in line; shorten that transaction or raise write_timeout "
        r"\(database is locked\)",
        str(caught.value),
    )
    done.set()
    await task
    assert turn.holder is None


async def test_statistics(path: Path) -> None:
    """They have the holder, its time, the waiters, and whether other processes line up."""
    turn = turn_of(path)
    assert turn.statistics() == TurnStatistics()
    assert not turn.locked()
    permit = await turn.acquire(1)
    permit.last_sql = "SELECT 1"
    other = asyncio.create_task(turn.acquire(1))
    await until_waiting(1, turn)
    turn.share()
    found = turn.statistics()
    assert (found.waiting, found.shared, turn.locked()) == (1, True, True)
    assert found.holder is not None
    assert (found.holder.sql, found.holder.seconds >= 0) == ("SELECT 1", True)
    turn.release(permit)
    turn.release(await other)
    assert turn.statistics().holder is None


async def test_it_is_free_where_the_stack_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds anywhere between the permit and the task that requested it."""
    turn = turn_of(Path("/data/app.db"))

    def fail() -> None:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(fair_semaphore, "caller", fail)
        with pytest.raises(RecursionError):
            await turn.acquire(1)
    turn.release(await turn.acquire(0.0))


async def test_its_files_are_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not count as a wait, and the turn is free afterwards, whatever happens."""
    turn = turn_of(path)
    turn.close_files()
    assert turn.statistics() == TurnStatistics()

    def interrupt(_: FileTurn) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FileTurn, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            turn.close_files()
    assert turn.holder is None


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("CREATE TABLE t (a)", True),
        ("/* app='shop' */ -- migrate;\n DROP TABLE t", True),
        ("\n;alter/**/table t add b", True),
        ("-- CREATE TABLE t (a)\nINSERT INTO t VALUES (1)", False),
        ("/* CREATE */ INSERT INTO t VALUES ('CREATE ')", False),
        ("CREATED", False),
        pytest.param("/**/" * 1_000 + "SELECT 1", False, id="many comments"),
    ],
)
async def test_ddl_that_is_not_committed_is_named(sql: str, told: bool) -> None:
    """Whatever comments are in front of it: the stock driver would have committed it."""
    turn = turn_of(Path("/data/app.db"))
    permit = await turn.acquire(1)
    permit.last_sql = sql
    assert ("whereas the stock driver" in str(turn.not_in_time(1.0))) is told
    turn.release(permit)


@pytest.mark.parametrize(
    ("sql", "ended"),
    [
        ("COMMIT", True),
        ("rollback /* a */;", True),
        ("-- a\nEND TRANSACTION", True),
        ("ROLLBACK TO a", False),
        ("ROLLBACK TRANSACTION TO a", False),
        ("-- COMMIT", False),
        ("COMMITTED", False),
        pytest.param("/**/" * 1_000 + "SAVEPOINT a", False, id="many comments"),
    ],
)
async def test_a_transaction_that_has_ended_is_named(sql: str, ended: bool) -> None:
    """The advice is to return its connection: there is nothing left to end."""
    turn = turn_of(Path("/data/app.db"))
    permit = await turn.acquire(1)
    permit.last_sql = sql
    with pytest.raises(TurnAlreadyHeldError) as caught:
        await turn.acquire(1)
    assert ("its transaction has ended" in str(caught.value)) is ended
    turn.release(permit)
