"""Functions in a group whose thread runs out of memory for a moment: each call has an outcome."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.closures import group, shared_transaction
from sa_sqlite_pool.compat.runners import Runner
from sa_sqlite_pool.execution.mailbox import Mailbox
from tests.closures.work import add, added, in_line


async def test_a_function_that_cannot_begin(
    db: SQLiteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction's calls get the error; nothing is kept, and the next call runs."""
    taken = 0

    def take() -> Runner:
        nonlocal taken
        taken += 1
        if taken == 2:
            raise MemoryError
        return Runner.take()

    monkeypatch.setattr(shared_transaction, "Runner", SimpleNamespace(take=take))
    calls = [partial(db.run_write_core, add, key) for key in range(10, 13)]
    outcomes = await in_line(db, path, *calls)
    assert [type(outcome) for outcome in outcomes] == [MemoryError] * 3
    assert await added(db) == []
    assert await db.run_write_core(add, 13) == 13


async def test_a_function_that_is_taken_and_cannot_begin(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task does not wait for ever."""
    loops_thread, left = threading.current_thread(), [MemoryError]

    def monotonic() -> float:
        if left and threading.current_thread() is not loops_thread:
            raise left.pop()
        return time.monotonic()

    monkeypatch.setattr(
        group, "time", SimpleNamespace(monotonic=monotonic, perf_counter=time.perf_counter)
    )
    with pytest.raises(MemoryError):
        await asyncio.wait_for(db.run_write_core(add, 10), 10)
    assert left == []
    assert await asyncio.wait_for(db.run_write_core(add, 11), 10) == 11
    assert await added(db) == [11]


async def test_functions_that_were_committed_and_cannot_be_reported(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are committed, and their tasks are told so."""
    post, left = Mailbox.post, [MemoryError]

    def posted(self: Mailbox, report: Any) -> None:
        if left and report.__name__ == "report":
            raise left.pop()
        post(self, report)

    monkeypatch.setattr(Mailbox, "post", posted)
    assert await asyncio.wait_for(db.run_write_core(add, 10), 10) == 10
    assert left == []
    assert await asyncio.wait_for(db.run_write_core(add, 11), 10) == 11
    assert await added(db) == [10, 11]
