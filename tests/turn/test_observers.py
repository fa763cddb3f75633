"""Observers of waits: without one, nothing is done; with one, all details are passed on."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.waits import NOTHING, UNWATCHED, ObservedWait, WaitedFor, WaitWatch
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until_waiting


class Waits(list[ObservedWait]):
    """The observed waits of the engine that ``watch`` represents."""

    def __init__(self) -> None:
        self.watch = WaitWatch(None)
        self.watch.observer = self.append

    def block(self, what: WaitedFor = WaitedFor.TURN) -> AbstractContextManager[None]:
        line = FairSemaphore(1)
        return self.watch.block(what, "app.db", line, line.describe_holders)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@dataclass
class Call:
    """A call that waits, and that was started if ``taken_at`` is set."""

    began: float
    taken_at: float | None = None
    held_by: str | None = None


def test_nothing_is_done_without_an_observer() -> None:
    """There is a single check, and one shared block."""
    line = FairSemaphore(1)
    assert UNWATCHED.block(WaitedFor.TURN, "app.db", line, line.describe_holders) is NOTHING


def test_an_observer_is_for_its_engine(waits: Waits) -> None:
    """Other engines' waits are not observed, nor those that end or begin after it was removed."""
    with Waits().block():
        pass
    assert waits == []
    with waits.block():
        waits.watch.observer = None
    assert waits == []
    assert waits.block() is NOTHING


async def test_the_holder_is_the_one_at_the_beginning(waits: Waits) -> None:
    """By the time the wait is over, the holder does something else."""
    line = FairSemaphore(1)
    permit = line.acquire_nowait()
    assert permit is not None
    began = time.time_ns()
    with waits.watch.block(WaitedFor.CONNECTION, "app.db", line, line.describe_holders):
        line.release(permit)
        await asyncio.sleep(0)
    (wait,) = waits
    assert wait.holder is not None
    task = asyncio.current_task()
    assert task is not None
    assert task.get_name() in wait.holder.task
    assert (wait.what, wait.database, wait.error) == (WaitedFor.CONNECTION, "app.db", None)
    assert wait.began_ns >= began
    assert wait.seconds > 0


async def test_a_wait_that_ended_before_its_call(waits: Waits) -> None:
    """The wait counts for its own length, and does not have the call's later error."""
    line = FairSemaphore(1)
    assert waits.watch.beginning(line) is None
    assert line.acquire_nowait() is not None
    beginning = waits.watch.beginning(line)
    call = Call(began=10.0, taken_at=70.0)
    waits.watch.call_ended(WaitedFor.TURN, "app.db", call, beginning, ValueError("later"))
    (wait,) = waits
    assert wait.holder is not None
    assert (wait.seconds, wait.error) == (60.0, None)


async def test_a_call_in_vain(waits: Waits, caplog: pytest.LogCaptureFixture) -> None:
    """A call that was never started waited until its end, and its error is the wait's."""
    line = FairSemaphore(1)
    assert line.acquire_nowait() is not None
    watch = WaitWatch(1.0, clock=lambda: 15.0)
    watch.observer = waits.append
    error, call = TimeoutError(), Call(began=10.0, held_by="another task")
    beginning = watch.beginning(line)
    watch.call_ended(WaitedFor.READER, "app.db", call, beginning, GeneratorExit())
    assert (waits, caplog.records) == ([], [])
    watch.call_ended(WaitedFor.READER, "app.db", call, beginning, error)
    (wait,) = waits
    assert (wait.what, wait.seconds, wait.error) == (WaitedFor.READER, 5.0, error)
    (record,) = caplog.records
    assert "waited 5.00 s for a reader of app.db" in record.getMessage()


def test_a_wait_in_vain(waits: Waits) -> None:
    """The record has the error, and the process that was in the way."""
    block = waits.watch.block(WaitedFor.PROCESS, "app.db", None, lambda: "process 7")
    with pytest.raises(TimeoutError), block:
        raise TimeoutError
    (wait,) = waits
    assert wait.process == "process 7"
    assert isinstance(wait.error, TimeoutError)


def test_a_holder_that_cannot_be_described(waits: Waits, caplog: pytest.LogCaptureFixture) -> None:
    """The wait is observed nevertheless, and the error is logged."""

    def describe() -> str:
        raise OSError("no /proc")

    with waits.watch.block(WaitedFor.PROCESS, "app.db", None, describe):
        pass
    (wait,) = waits
    assert (wait.process, wait.error) == (None, None)
    assert "no /proc" in caplog.text


async def test_an_observer_that_fails_loses_no_turn(
    db: SQLiteDatabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and the task that has waited continues."""

    def fail(_: ObservedWait) -> None:
        raise ValueError("of the observer")

    async def write() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)

    await create_items(db.writer_engine)
    db.writer_engine.pool.wait_watch.observer = fail  # type: ignore[attr-defined]
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        task = asyncio.create_task(write())
        await until_waiting(1, turn_of(path))
    await task
    await write()
    assert "of the observer" in caplog.text


def test_a_coroutine_that_is_dropped_is_none(waits: Waits) -> None:
    """Its loop is gone, and the garbage collector closes it anywhere."""

    async def wait() -> None:
        with waits.block():
            await asyncio.sleep(0)

    coroutine = wait()
    coroutine.send(None)
    coroutine.close()
    assert waits == []
