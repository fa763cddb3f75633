"""Programs of children that are killed, or run out of disk space, in the middle of a group."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, MissingGreenlet, OperationalError
from sqlalchemy.util import await_only

from sa_sqlite_pool import ClosureError, SQLiteDatabase
from sa_sqlite_pool.turn.permit import Permit
from tests.closures.work import Inside, add, ids, turn_held
from tests.helpers import create_items, turn_of, until_waiting


async def _in_line(db: SQLiteDatabase, *calls: Any) -> list[asyncio.Future[Any]]:
    tasks: list[asyncio.Future[Any]] = []
    async with turn_held(db):
        for call in calls:
            tasks.append(asyncio.ensure_future(call()))
            await asyncio.sleep(0)
    return tasks


def stops_in_a_group(pipe: Pipe, path: Path) -> None:
    """Report acknowledged functions, begin a group, and report when its third function runs."""
    asyncio.run(_stop_in_a_group(pipe, path))


async def _stop_in_a_group(pipe: Pipe, path: Path) -> None:
    def stay(connection: Connection) -> None:
        add(connection, 30)
        pipe.send("in the middle")
        threading.Event().wait()

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        done = await _in_line(db, *(partial(db.run_write_core, add, key) for key in (10, 11)))
        pipe.send(await asyncio.gather(*done))
        add_some = [partial(db.run_write_core, add, key) for key in (20, 21)]
        await asyncio.gather(*await _in_line(db, *add_some, partial(db.run_write_core, stay)))


def finds_no_room(pipe: Pipe, path: Path) -> None:
    """Report the outcome of a group whose COMMIT had no space, and of a later one."""
    asyncio.run(_find_no_room(pipe, path))


async def _find_no_room(pipe: Pipe, path: Path) -> None:
    import resource  # noqa: PLC0415 - not on every system

    def much(connection: Connection, key: int) -> int:
        connection.execute(text("INSERT INTO filling VALUES (zeroblob(300000))"))
        return add(connection, key)

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await db.run_write_core(Connection.execute, text("CREATE TABLE filling (data)"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
        calls = [partial(db.run_write_core, much, key) for key in (10, 11, 12)]
        outcomes = await asyncio.gather(*await _in_line(db, *calls), return_exceptions=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        pipe.send([_told(outcome) for outcome in outcomes])
        pipe.send([await db.run_write_core(much, key) for key in (20, 21)])


def forks_with_a_line(pipe: Pipe, path: Path) -> None:
    """Report the writes of a child forked while functions waited, and the functions' later ones."""
    loop = asyncio.new_event_loop()
    db = SQLiteDatabase(path)
    loop.run_until_complete(db.open())
    loop.run_until_complete(create_items(db.writer_engine))
    permit, tasks = loop.run_until_complete(_line_up(db, path))
    pid = os.fork()
    if not pid:
        pipe.send(len(db._closures._writes._groups))
        pipe.send(asyncio.run(db.run_write_core(add, 20)))
        os._exit(0)
    os.waitpid(pid, 0)
    turn_of(path).release(permit)
    pipe.send(loop.run_until_complete(asyncio.gather(*tasks)))
    loop.run_until_complete(db.close())
    loop.close()


async def _line_up(db: SQLiteDatabase, path: Path) -> tuple[Permit, list[asyncio.Task[int]]]:
    permit = turn_of(path).acquire_nowait()
    assert permit is not None
    tasks = [asyncio.ensure_future(db.run_write_core(add, key)) for key in (10, 11)]
    await until_waiting(1, turn_of(path))
    return permit, tasks


def forks_after_a_read(pipe: Pipe, path: Path) -> None:
    """Report the read of a child forked in the step after a read, and its parent's later read."""
    asyncio.run(_fork_after_a_read(pipe, path))


async def _fork_after_a_read(pipe: Pipe, path: Path) -> None:
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await db.run_read_core(ids)
        pid = os.fork()
        if not pid:
            _in_a_new_thread(lambda: pipe.send(asyncio.run(db.run_read_core(ids))))
            os._exit(0)
        os.waitpid(pid, 0)
        pipe.send(await db.run_read_core(ids))


def _in_a_new_thread(function: Callable[[], object]) -> None:
    """Run ``function`` in a new thread, which does not have the parent's running loop."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def forks_while_reads_wait(pipe: Pipe, path: Path) -> None:
    """Report the error in a child forked while functions waited, and the functions' results."""
    asyncio.run(_fork_while_reads_wait(pipe, path))


async def _fork_while_reads_wait(pipe: Pipe, path: Path) -> None:
    async with SQLiteDatabase(path, readers=1) as db:
        await create_items(db.writer_engine)
        inside = Inside(ids)
        tasks = [asyncio.ensure_future(db.run_read_core(inside))]
        await inside.until_entered()
        tasks += [asyncio.ensure_future(db.run_read_core(ids)) for _ in range(2)]
        await asyncio.sleep(0)
        pid = os.fork()
        if not pid:
            _in_a_new_thread(lambda: pipe.send(asyncio.run(_error_of_a_read(db))))
            os._exit(0)
        os.waitpid(pid, 0)
        inside.leave.set()
        pipe.send(await asyncio.gather(*tasks))


async def _error_of_a_read(db: SQLiteDatabase) -> str:
    try:
        return str(await db.run_read_core(ids))
    except OperationalError as error:
        return str(error)


def ends_threads_while_errors_are_collected(pipe: Pipe, path: Path) -> None:
    """Report when forty databases, whose functions had failed, have been closed."""
    asyncio.run(_end_threads_while_errors_are_collected(path))
    pipe.send("done")


def ends_threads_while_missing_greenlets_are_collected(pipe: Pipe, path: Path) -> None:
    """Do the same with functions that await something, as lazy loading does, and ending loops."""
    for _ in range(15):
        thread = threading.Thread(target=lambda: asyncio.run(_read_awaiting(path)))
        thread.start()
        while thread.is_alive():
            gc.collect()
            thread.join(0.001)
        gc.collect()
    pipe.send("done")


async def _read_awaiting(path: Path) -> None:
    def awaits(_: Connection) -> None:
        node = _Slow()
        try:
            await_only(asyncio.sleep(0))
        except MissingGreenlet as error:
            node.cycle = error
            error.cycle = node  # type: ignore[attr-defined]
            raise

    async with SQLiteDatabase(path) as db:
        await asyncio.gather(*(db.run_read_core(awaits) for _ in range(5)), return_exceptions=True)


async def _end_threads_while_errors_are_collected(path: Path) -> None:
    def fails(connection: Connection) -> None:
        node = _Slow()
        node.cycle = node
        add(connection, 10)
        connection.connection.driver_connection.commit()  # type: ignore[union-attr]

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
    for _ in range(40):
        async with SQLiteDatabase(path) as db:
            try:
                await db.run_write_core(fails)
            except ClosureError as error:
                error.cycle = error  # type: ignore[attr-defined]
        gc.collect()


class _Slow:
    """An object whose collection is slow, so a thread may end meanwhile."""

    cycle: object

    def __del__(self) -> None:
        for _ in range(2_000):
            pass


def _told(outcome: object) -> object:
    return str(outcome.orig) if isinstance(outcome, DBAPIError) else outcome
