"""Processes that write to the table ``items`` through a door of the package, on command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool.transactions.locks import Patience
from sa_sqlite_pool.turn import file_turn
from sa_sqlite_pool.turn.lock_file import LockFile, lock_file
from tests.children import heard
from tests.fork_programs import ended, fork
from tests.helpers import UPDATE_FIRST
from tests.programs import Door, say

_AMOUNT = text("SELECT amount FROM items WHERE id = 1")
_SET_AMOUNT = text("UPDATE items SET amount = :amount WHERE id = 1")


@asynccontextmanager
async def opened(name: str, path: Path, **options: Any) -> AsyncIterator[Door]:
    """Provide a door with its connections open, so a writer requests the turn at once."""
    door = Door(name, str(path), **options)
    try:
        await connect(door)
        yield door
    finally:
        await door.close()


async def connect(door: Door) -> None:
    """Open a connection of each kind."""
    await door.open()
    for engine in door.engines:
        async with engine.connect():
            pass


async def amount(door: Door) -> int:
    """Return how often ``UPDATE_FIRST`` was committed."""
    async with door.read() as reader:
        return int(await reader.scalar(_AMOUNT))


async def write(door: Door) -> None:
    async with door.write() as writer:
        await writer.execute(UPDATE_FIRST)


# -- one transaction after the other, on command ---------------------------------------------------


def obey(pipe: Connection, door: str, path: Path, options: dict[str, Any]) -> None:
    """Send ``open``, and execute the commands received.

    ``write``: run a transaction, and send ``write`` when it is committed. ``queue``: the same, but
    send ``queued`` first, once it waits in line; the turn must be taken. ``hold``: send ``holds``
    within a transaction, and commit or roll back on command. If a wait fails, the error is sent.
    """
    asyncio.run(_obey(pipe, door, path, options))


async def _obey(pipe: Connection, name: str, path: Path, options: dict[str, Any]) -> None:
    async with opened(name, path, **options) as door:
        pipe.send("open")
        while (word := await heard(pipe)) != "close":
            transaction = asyncio.create_task(_transaction(pipe, door, word))
            if word == "queue":
                await in_line(door)
                pipe.send("queued")
            await transaction


async def in_line(door: Door) -> None:
    """Wait until a writing task that has just been started waits in line, in either line.

    It requests the turn before its first await, or in a thread; a read is a hop and back.
    """
    for _ in range(3):
        await amount(door)


class _RollBack(Exception):  # noqa: N818 - no error
    pass


async def _transaction(pipe: Connection, door: Door, word: str) -> None:
    try:
        async with door.write() as writer:
            await writer.execute(UPDATE_FIRST)
            if word == "hold":
                pipe.send("holds")
                word = await heard(pipe)
                if word == "rollback":
                    raise _RollBack
    except _RollBack:
        pass
    except exc.TimeoutError as error:
        word = f"{type(error).__name__}: {error}"
    pipe.send(word)


# -- many at once ----------------------------------------------------------------------------------


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Raise if another block of this kind runs at the same time, in any process."""
    mark = f"{path}-alone"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    try:
        yield
    finally:
        os.unlink(mark)


async def read_modify_write(door: Door, path: Path, *, tasks: int, times: int) -> None:
    """Add one to the amount, ``tasks`` times ``times``, each time to the value read before."""

    async def add() -> None:
        for _ in range(times):
            async with door.claim() as writer:
                before = await writer.scalar(_AMOUNT)
                with alone(path):
                    await asyncio.sleep(0)
                    await writer.execute(_SET_AMOUNT, {"amount": before + 1})

    await asyncio.gather(*(add() for _ in range(tasks)))


@contextmanager
def tries_counted() -> Iterator[list[sqlite3.Error]]:
    """Collect the errors for which tasks of this process waited for SQLite's lock in the block."""
    met: list[sqlite3.Error] = []
    wait = Patience.wait

    async def counted(self: Patience, error: sqlite3.Error) -> None:
        met.append(error)
        await wait(self, error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Patience, "wait", counted)
        yield met


def write_beside_others(pipe: Connection, door: str, path: Path, tasks: int, times: int) -> None:
    """Send ``open``, start on command, and send how often SQLite's lock was taken."""

    async def main() -> None:
        async with opened(door, path) as own:
            pipe.send("open")
            await heard(pipe)
            await read_modify_write(own, path, tasks=tasks, times=times)

    with tries_counted() as met:
        asyncio.run(main())
    pipe.send(len(met))


def hammer(pipe: Connection, door: str, path: Path, tasks: int) -> None:
    """Send ``open``; write without a pause from the command to start until the command to stop."""

    async def main() -> None:
        async with opened(door, path) as own:
            pipe.send("open")
            await heard(pipe)
            stopped = asyncio.create_task(heard(pipe))

            async def write_on() -> None:
                while not stopped.done():
                    await write(own)

            await write(own)
            pipe.send("writes")
            await asyncio.gather(stopped, *(write_on() for _ in range(tasks)))

    asyncio.run(main())


class _Watched:
    """The lock of the turn. A waiter is first in line, and counts the writes before its own."""

    def __init__(self, lock: LockFile, path: Path, counts: list[int]) -> None:
        self._path = path
        self._counts = counts
        self.acquire_nowait, self.release, self._acquire = (
            lock.acquire_nowait,
            lock.release,
            lock.acquire,
        )
        self.replaced = False

    def acquire(self) -> None:
        before = self._committed()
        self._acquire()
        self._counts.append(self._committed() - before)

    def _committed(self) -> int:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute(_AMOUNT.text).fetchone()[0])


@contextmanager
def overtaken(path: Path) -> Iterator[list[int]]:
    """Collect the number of writes during each time that this process was first in line.

    This applies to doors that are opened in the block.
    """
    counts: list[int] = []

    def watched(name: str, like: str) -> LockFile:
        lock = lock_file(name, like)
        return _Watched(lock, path, counts) if name.endswith("-turn") else lock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_turn, "lock_file", watched)
        yield counts


# -- forks and ends --------------------------------------------------------------------------------


def fork_and_write(pipe: Connection, door: str, path: Path, tasks: int, times: int) -> None:
    """Open, fork, and write beside the child; send the child's exit code, and the amount."""

    async def work() -> None:
        await read_modify_write(own, path, tasks=tasks, times=times)

    async def finish() -> int:
        found = await amount(own)
        await own.close()
        return found

    own = Door(door, str(path))
    asyncio.run(connect(own))
    child = fork(lambda: asyncio.run(work()))
    asyncio.run(work())
    pipe.send((ended(child), asyncio.run(finish())))


def hold_and_fork(pipe: Connection, door: str, path: Path) -> None:
    """Fork a child that does nothing in the middle of a write transaction."""
    _hold_and(pipe, door, path, lambda: fork(_wait_to_be_killed))


def hold_and_start_program(pipe: Connection, door: str, path: Path) -> None:
    """Start a program that inherits all it can in the middle of a write transaction."""

    def start() -> int:
        program = [sys.executable, "-c", "import signal; signal.alarm(20); signal.pause()"]
        return subprocess.Popen(program, close_fds=False).pid

    _hold_and(pipe, door, path, start)


def _hold_and(pipe: Connection, door: str, path: Path, start: Callable[[], int]) -> None:
    async def main() -> None:
        async with opened(door, path) as own, own.write() as writer:
            await writer.execute(UPDATE_FIRST)
            pipe.send(start())
            await heard(pipe)

    asyncio.run(main())


def _wait_to_be_killed() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        read, _ = os.pipe()
        os.read(read, 1)


# -- separate programs: ``python -m tests.writers PROGRAM DOOR PATH`` ------------------------------


def end_in_line(own: Door) -> None:
    """End while a task waits in line for the turn, which must be taken. The task is cancelled."""
    asyncio.run(_stand_in_line(own))


def exit_in_line(own: Door) -> None:
    """Do the same with a task that never runs again, in a loop that is never closed."""
    loop = asyncio.new_event_loop()
    waiting = loop.run_until_complete(_stand_in_line(own))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


async def _stand_in_line(own: Door) -> asyncio.Task[None]:
    await connect(own)
    waiting = asyncio.create_task(write(own))
    await in_line(own)
    assert not waiting.done()
    say("queued")
    return waiting


if __name__ == "__main__":
    globals()[sys.argv[1]](Door(sys.argv[2], sys.argv[3]))
