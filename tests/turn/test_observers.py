"""Observers of waits: nothing without one, and all that is known with one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.observers import (
    NOTHING,
    ObservedWait,
    WaitFor,
    forget_observer,
    observe_waits,
    observed,
    waits_are_observed,
)
from tests.helpers import UPDATE_FIRST, create_items, turn_of, until_waiting

OWNER, OTHER = object(), object()


@pytest.fixture
def waits() -> Iterator[list[ObservedWait]]:
    """The waits on behalf of OWNER that have ended."""
    found: list[ObservedWait] = []
    observe_waits(OWNER, found.append)
    yield found
    forget_observer(OWNER)


def test_nothing_is_done_without_an_observer() -> None:
    """One look; the same block for all."""
    assert not waits_are_observed()
    line = FairSemaphore(1)
    assert observed(OWNER, WaitFor.TURN, "app.db", line) is NOTHING


def test_an_observer_is_for_its_owner(waits: list[ObservedWait]) -> None:
    """Waits on behalf of others, and of none, are not observed; nor those after it has left."""
    assert waits_are_observed()
    for owner in (OTHER, None):
        with observed(owner, WaitFor.TURN, "app.db", FairSemaphore(1)):
            pass
    assert waits == []
    forget_observer(OWNER)
    assert not waits_are_observed()
    forget_observer(OWNER)


async def test_the_holder_is_the_one_at_the_beginning(waits: list[ObservedWait]) -> None:
    """When the wait is over, it does something else."""
    line = FairSemaphore(1)
    permit = line.acquire_nowait()
    assert permit is not None
    began = time.time_ns()
    with observed(OWNER, WaitFor.CONNECTION, "app.db", line):
        line.release(permit)
        await asyncio.sleep(0)
    (wait,) = waits
    assert wait.holder is not None
    task = asyncio.current_task()
    assert task is not None
    assert task.get_name() in wait.holder.task
    assert (wait.what, wait.database, wait.error) == (WaitFor.CONNECTION, "app.db", None)
    assert wait.began_ns >= began
    assert wait.seconds > 0


def test_a_wait_that_ended_before_its_block(waits: list[ObservedWait]) -> None:
    """It is as long as the wait, and what the block raises is none of the wait's."""
    began = time.monotonic()
    block = observed(OWNER, WaitFor.TURN, "app.db", FairSemaphore(1), lambda: began + 60.0)
    with pytest.raises(ValueError, match="later"), block:
        raise ValueError("later")
    (wait,) = waits
    assert wait.holder is None
    assert wait.error is None
    assert 59.0 < wait.seconds <= 60.0


def test_a_wait_in_vain(waits: list[ObservedWait]) -> None:
    """It has the error, and the process that was in the way."""
    block = observed(OWNER, WaitFor.PROCESS, "app.db", lambda: "process 7")
    with pytest.raises(TimeoutError), block:
        raise TimeoutError
    (wait,) = waits
    assert wait.process == "process 7"
    assert isinstance(wait.error, TimeoutError)


async def test_an_observer_that_fails_loses_no_turn(
    db: SQLiteDatabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and the task that has waited goes on."""

    def fail(_: ObservedWait) -> None:
        raise ValueError("of the observer")

    async def write() -> None:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)

    await create_items(db.writer_engine)
    owner = db.writer_engine.pool.owner  # type: ignore[attr-defined]
    observe_waits(owner, fail)
    try:
        async with db.write() as session:
            await session.execute(UPDATE_FIRST)
            task = asyncio.create_task(write())
            await until_waiting(1, turn_of(path))
        await task
    finally:
        forget_observer(owner)
    await write()
    assert "of the observer" in caplog.text


def test_a_coroutine_that_is_dropped_is_none(waits: list[ObservedWait]) -> None:
    """Its loop is gone; the garbage collector ends it anywhere."""

    async def wait() -> None:
        with observed(OWNER, WaitFor.TURN, "app.db", FairSemaphore(1)):
            await asyncio.sleep(0)

    coroutine = wait()
    coroutine.send(None)
    coroutine.close()
    assert waits == []
