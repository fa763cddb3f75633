"""Functions in a group whose leader fails: each call has exactly one outcome."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures.group import Group
from sa_sqlite_pool.execution.running import RunsJobs
from tests.closures.work import add, added, turn_held
from tests.helpers import until


class ArgumentsError(Exception):
    """A typical error of an application, which ``copy.copy()`` cannot recreate."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


class HandleError(Exception):
    def __reduce_ex__(self, _: object) -> Any:
        raise TypeError("it has a handle")


@pytest.mark.parametrize(
    "make", [lambda: ArgumentsError(42, "no key"), lambda: HandleError("no key")]
)
@pytest.mark.parametrize("where", ["connect", "checkout"])
async def test_an_error_of_a_listener_that_has_no_copy(
    db: SQLiteDatabase, path: Path, make: Callable[[], Exception], where: str
) -> None:
    """All calls of the group get it, as a session does, and none waits for ever."""
    error = make()
    with pytest.raises(TypeError):
        copy.copy(error)
    await db.writer_engine.dispose()
    failing = True

    def fail(*_: object) -> None:
        if failing:
            raise error

    event.listen(db.writer_engine.sync_engine, where, fail)
    calls = [asyncio.create_task(db.run_write_core(add, key)) for key in (10, 11)]
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert [type(outcome) for outcome in outcomes] == [type(error)] * 2
    failing = False
    assert await asyncio.wait_for(db.run_write_core(add, 12), 10) == 12
    assert await added(db) == [12]


async def test_a_function_that_runs_when_its_leader_fails(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler may raise in the leader; the thread's report on the call counts."""
    begun, led, happened = threading.Event(), threading.Event(), list[str]()
    ran, was_led = RunsJobs.run, Group._leader_ended

    def run(self: RunsJobs, function: Any, **kw: Any) -> Any:
        job = ran(self, function, **kw)
        if kw.get("interruptible", True):
            return job
        monkeypatch.setattr(RunsJobs, "run", ran)
        assert begun.wait(30)
        raise ZeroDivisionError

    def note(self: Group, leader: asyncio.Future[None]) -> None:
        was_led(self, leader)
        led.set()

    def wait(_: Connection) -> None:
        begun.set()
        assert led.wait(30)
        happened.append("has run")

    async def call() -> None:
        with pytest.raises(Exception, match="no active connection"):
            await db.run_write_core(wait)
        happened.append("is told")

    monkeypatch.setattr(Group, "_leader_ended", note)
    monkeypatch.setattr(RunsJobs, "run", run)
    await asyncio.wait_for(call(), 30)
    assert happened == ["has run", "is told"]
    assert await asyncio.wait_for(db.run_write_core(add, 11), 10) == 11
    assert await added(db) == [11]


async def test_a_call_beside_one_that_is_cancelled(db: SQLiteDatabase) -> None:
    """The leader is cancelled with the last waiting call; the running one is committed."""
    entered, leave = threading.Event(), threading.Event()

    def stay(connection: Connection) -> int:
        entered.set()
        assert leave.wait(30)
        return add(connection, 10)

    async with turn_held(db):
        first = asyncio.create_task(db.run_write_core(stay))
        await asyncio.sleep(0)
        second = asyncio.create_task(db.run_write_core(add, 11))
        await asyncio.sleep(0)
    await until(entered.is_set)
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()
    leave.set()
    assert await asyncio.wait_for(first, 10) == 10
    assert await added(db) == [10]
