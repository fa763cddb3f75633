"""Functions that read: how their line, their readers, their loops and their processes end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sa_sqlite_pool import DatabaseClosedError, SQLiteDatabase
from sa_sqlite_pool.closures import group
from sa_sqlite_pool.closures.read_group import ReadGroup
from sa_sqlite_pool.compat.background import start_task
from tests.children import Child, needs_fork_server
from tests.closures.programs import forks_after_a_read, forks_while_reads_wait
from tests.closures.work import Inside, bump, cancelled, ids
from tests.helpers import Item, create_items, driver, turn_of, until, until_waiting


async def test_closing_those_that_wait(one: SQLiteDatabase) -> None:
    """They are sent away; the running one may end."""
    inside = Inside(ids)
    first = asyncio.ensure_future(one.run_read_core(inside))
    await inside.until_entered()
    others = [asyncio.ensure_future(one.run_read_core(ids)) for _ in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(one.close())
    for other in others:
        with pytest.raises(DatabaseClosedError):
            await other
    inside.leave.set()
    assert await first == [1, 2, 3]
    await closing


async def test_its_task_is_cancelled(one: SQLiteDatabase) -> None:
    """If another task cancels all tasks except its own, the calls that still wait are served."""
    async with one.reader_engine.connect():
        waits = asyncio.ensure_future(one.run_read_core(ids))
        await until_waiting(1, one.reader_engine.sync_engine.pool)
        (task,) = [t for t in asyncio.all_tasks() if t.get_name().startswith("reads of")]
        assert await cancelled(task)
    assert await waits == [1, 2, 3]


class HalfStarted:
    """A task to which no callback can be added, as at the end of the stack."""

    def __init__(self, task: asyncio.Future[Any]) -> None:
        self.cancel = task.cancel

    def add_done_callback(self, *_: object, **__: object) -> None:
        raise RecursionError


async def test_a_task_that_is_half_started(
    one: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no reader, and the next call is served."""
    started = 0

    def start(work: Coroutine[Any, Any, Any], name: str) -> Any:
        nonlocal started
        started += 1
        task = start_task(work, name)
        return HalfStarted(task) if started == 1 else task

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    monkeypatch.setattr(group, "start_task", start)
    with pytest.raises(RecursionError):
        await one.run_read_core(ids)
    for _ in range(2):
        connection = await asyncio.wait_for(one.reader_engine.connect().start(), 10)
        await connection.close()  # the calls have returned the reader for it
        assert await asyncio.wait_for(one.run_read_core(ids), 10) == [1, 2, 3]
    assert started > 1


async def test_no_reader_to_be_had(one: SQLiteDatabase) -> None:
    """The function whose reader was unavailable gets the error, and the next one another reader."""
    errors = [ZeroDivisionError("no reader")]

    def refuse(*_: object) -> None:
        if errors:
            raise errors.pop()

    event.listen(one.reader_engine.sync_engine.pool, "checkout", refuse)
    outcomes = await asyncio.gather(
        *(one.run_read_core(ids) for _ in range(3)), return_exceptions=True
    )
    assert isinstance(outcomes[0], ZeroDivisionError)
    assert outcomes[1:] == [[1, 2, 3]] * 2


async def test_nothing_is_committed(one: SQLiteDatabase) -> None:
    """Without a flush, it ends like SQLAlchemy's own session; a flush is refused."""
    told: list[str] = []
    for name in ("commit", "rollback"):
        event.listen(one.reader_engine.sync_engine, name, lambda _, n=name: told.append(n))
    await one.run_read(lambda session: session.get_one(Item, 1))
    await one.run_read_core(ids)
    assert told == ["rollback", "rollback"]

    def store(session: Session) -> None:
        session.add(Item(id=10))

    with pytest.raises(OperationalError, match="cannot change a database"):
        await one.run_read(store)


# -- loops and processes --------------------------------------------------------------------------


async def test_two_loops(one: SQLiteDatabase) -> None:
    """Each returns to its own loop, even if they wait for the same reader."""
    threads: list[int] = []

    async def read() -> None:
        assert await one.run_read_core(ids) == [1, 2, 3]
        threads.append(threading.get_ident())

    async def read_often() -> None:
        for _ in range(10):
            await asyncio.gather(*(read() for _ in range(5)))

    await asyncio.gather(read_often(), asyncio.to_thread(asyncio.run, read_often()))
    assert threads.count(threading.get_ident()) == 50
    assert len(threads) == 100


def test_a_loop_that_stands_still(path: Path) -> None:
    """Neither reader nor turn stays with a loop that has nothing to do and does not run."""
    db, first, second = SQLiteDatabase(path, readers=1), *_two_loops()
    first.run_until_complete(db.open())
    first.run_until_complete(create_items(db.writer_engine))
    for _ in range(20):
        for loop in (first, second):
            loop.run_until_complete(db.run_write_core(bump))
            assert turn_of(path).holder is None
            assert loop.run_until_complete(db.run_read_core(ids)) == [1, 2, 3]
            assert not db.reader_engine.sync_engine.pool.checkedout()  # type: ignore[attr-defined]
    first.run_until_complete(db.close())
    first.close()
    second.close()


def _two_loops() -> tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]:
    return asyncio.new_event_loop(), asyncio.new_event_loop()


def test_a_loop_that_is_closed_in_the_middle(path: Path) -> None:
    """The running function is stopped, waiting ones never run; the next loop gets the reader."""
    db = SQLiteDatabase(path, readers=1)
    inside, never = Inside(ids), Inside()
    loop, tasks = asyncio.new_event_loop(), []

    async def leave() -> None:
        await db.open()
        await create_items(db.writer_engine)
        tasks.append(asyncio.ensure_future(db.run_read_core(inside)))
        await inside.until_entered()
        tasks.append(asyncio.ensure_future(db.run_read_core(never)))
        await asyncio.sleep(0)

    async def go_on() -> None:
        reads = asyncio.ensure_future(db.run_read_core(ids))
        await until_waiting(1, db.reader_engine.sync_engine.pool)
        inside.leave.set()
        assert await reads == [1, 2, 3]
        assert never.runs == 0
        await db.close()

    loop.run_until_complete(leave())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.run(go_on())
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_nothing_runs_for_a_loop_that_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions waiting there never run, even if no other loop wants the reader."""
    monkeypatch.setattr(ReadGroup, "_watch", lambda _: None)  # no other reader takes over
    db = SQLiteDatabase(path)
    inside, never = Inside(), Inside()
    never.leave.set()
    loop, tasks, workers = asyncio.new_event_loop(), [], []

    async def leave() -> None:
        await db.open()
        await create_items(db.writer_engine)
        async with db.reader_engine.connect() as connection:
            workers.append((await driver(connection)).worker)
        tasks.append(asyncio.ensure_future(db.run_read_core(inside)))
        await inside.until_entered()
        tasks.append(asyncio.ensure_future(db.run_read_core(never)))
        await asyncio.sleep(0)

    async def go_on() -> None:
        inside.leave.set()
        await until(lambda: workers[0].at_rest)
        assert never.runs == 0
        await db.close(0)

    loop.run_until_complete(leave())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.run(go_on())
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


@needs_fork_server
def test_forked_right_after_a_read(path: Path) -> None:
    """In the same step of the task, no reader is in use, and the child can open the file."""
    with Child(forks_after_a_read, path) as child:
        assert child.hear() == [1, 2, 3]  # in the child
        assert child.hear() == [1, 2, 3]
        assert child.ended() == 0


@needs_fork_server
def test_forked_while_functions_that_read_wait(path: Path) -> None:
    """The line is the parent's, which continues; the child is told that the file was in use."""
    with Child(forks_while_reads_wait, path) as child:
        assert "was forked while a connection to that file was in use" in child.hear()
        assert child.hear() == [[1, 2, 3]] * 3
        assert child.ended() == 0
