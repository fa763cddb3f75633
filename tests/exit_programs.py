"""Programs that end with something left open: ``python -m tests.exit_programs PROGRAM DOOR PATH``.

Each prints ``ready`` once everything is open; ``tests/test_exit.py`` measures from there.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from sa_sqlite_pool.system import exits
from tests.helpers import turn_of, until_waiting
from tests.programs import COUNT, INSERT, WAIT_SECONDS, Door, say

# started() is called when the statement runs, in its thread.
_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT started() UNION ALL SELECT i + 1 FROM n)"
ENDLESS_READ = text(f"{_ENDLESS} SELECT count(*) FROM n")
ENDLESS_WRITE = text(f"INSERT INTO t {_ENDLESS} SELECT count(*) FROM n")

UPDATES = 200


class App:
    """A door, and the objects that its application leaves open."""

    def __init__(self, door: str, path: str) -> None:
        self.path = Path(path)
        self.left: list[Any] = []
        self._on_start: Callable[[], object] = bool
        self.door = Door(door, path, self._on_connect)

    def _on_connect(self, connection: sqlite3.Connection) -> None:
        connection.create_function("started", 0, self._started)

    def _started(self) -> int:
        self._on_start()
        return 1

    async def read_endlessly(self) -> None:
        async with self.door.read() as reader:
            await reader.execute(ENDLESS_READ)

    async def write_endlessly(self) -> None:
        async with self.door.write() as writer:
            await writer.execute(ENDLESS_WRITE)

    async def start(self, endless: Coroutine[Any, Any, None]) -> None:
        """Leave a task behind whose statement is running in SQLite."""
        loop, running = asyncio.get_running_loop(), asyncio.Event()
        self._on_start = lambda: loop.call_soon_threadsafe(running.set)
        self.leave_task(endless)
        await running.wait()

    async def begin(self) -> None:
        """Leave a write transaction open."""
        using = self.door.write()
        writer = await using.__aenter__()
        await writer.execute(INSERT)
        self.left.extend((using, writer))

    async def line_up(self) -> None:
        """Leave three tasks waiting for the turn."""
        self.left.append(await turn_of(self.path).acquire(WAIT_SECONDS))
        await self.wait_in_line()

    async def wait_in_line(self) -> None:
        for _ in range(3):
            self.leave_task(self.door.add())
        await until_waiting(3, turn_of(self.path))

    def leave_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        # A close that ends it makes it fail, and asyncio logs exceptions that were not retrieved.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.left.append(task)


async def nothing(app: App) -> None:
    pass


async def a_running_read(app: App) -> None:
    await app.start(app.read_endlessly())


async def a_running_write(app: App) -> None:
    await app.start(app.write_endlessly())


async def a_write_transaction(app: App) -> None:
    await app.begin()


async def waiters(app: App) -> None:
    await app.line_up()


async def everything(app: App) -> None:
    await app.start(app.read_endlessly())
    await app.begin()
    await app.wait_in_line()


LEAVE = [nothing, a_running_read, a_running_write, a_write_transaction, waiters, everything]


def returns(app: App, leave: Any) -> None:
    """Return from main() without closing anything."""

    async def main() -> None:
        await app.door.prepare()
        await leave(app)
        say("ready")

    asyncio.run(main())


def calls_functions(app: App, leave: Any) -> None:
    """Call functions, whose readers are kept by their own line."""
    db = app.door.db
    assert db is not None

    async def main() -> None:
        await app.door.prepare()
        await db.run_write_core(lambda connection: connection.execute(INSERT).rowcount)
        say("counts", *await asyncio.gather(*(db.run_read_core(_count) for _ in range(8))))
        await leave(app)
        say("ready")

    asyncio.run(main())


def _count(connection: Connection) -> int:
    return int(connection.scalar(COUNT) or 0)


def keeps_the_log(app: App, leave: Any) -> None:
    """Keep the log, for a program that copies it."""
    app.door = Door("facade", str(app.path), keep_wal=True)
    returns(app, leave)


def writes_at_the_exit(app: App, leave: Any) -> None:
    """Write in an exit handler of the application."""

    def write() -> None:
        asyncio.run(app.door.add())
        say("counts", asyncio.run(app.door.count()))

    atexit.register(write)
    returns(app, leave)


def writes_later_at_the_exit(app: App, leave: Any) -> None:
    """Write in an exit handler that was registered before this package was imported."""
    finalize: Any = weakref.finalize
    for handler in (exits._close_all, finalize._exitfunc):
        atexit.unregister(handler)
    writes_at_the_exit(app, leave)
    for handler in (exits._close_all, finalize._exitfunc):
        atexit.register(handler)


def writes_in_a_daemon(app: App, leave: Any) -> None:
    """Write in a daemon thread with its own loop, which never ends."""

    async def write_on() -> None:
        while True:
            await app.door.add()
            writes.release()

    returns(app, leave)
    writes = threading.Semaphore(0)
    threading.Thread(target=lambda: asyncio.run(write_on()), daemon=True).start()
    for _ in range(5):
        writes.acquire()


def forks(app: App, leave: Any) -> None:
    """Fork a child that ends in the same way, while the parent continues."""
    returns(app, leave)
    warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which are idle then
    if os.fork() == 0:
        asyncio.run(app.door.add())
        return
    code = os.wait()[1]
    asyncio.run(app.door.add())
    say("counts", asyncio.run(app.door.count()), code)


def starts_a_process(app: App, leave: Any) -> None:
    """Start a process with multiprocessing's fork; the parent does not open the database again."""
    returns(app, leave)
    warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which are idle then
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: asyncio.run(app.door.add()))
    child.start()
    child.join()
    say("ended", child.exitcode)


def exits_in_a_task(app: App, leave: Any) -> None:
    async def leave_the_program() -> None:
        say("ready")
        sys.exit(0)

    async def main() -> None:
        await app.door.prepare()
        await leave(app)
        app.leave_task(leave_the_program())
        await asyncio.Event().wait()

    asyncio.run(main())


def raises(app: App, leave: Any) -> None:
    async def main() -> None:
        await app.door.prepare()
        await leave(app)
        say("ready")
        raise LookupError("as expected")

    asyncio.run(main())


def closes_the_loop(app: App, leave: Any) -> None:
    """Close the loop explicitly, with tasks that never run again."""

    async def main() -> None:
        await app.door.prepare()
        await leave(app)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    say("ready")


def waits_for_a_signal(app: App, leave: Any) -> None:
    """Wait inside ``async with db`` if there is a facade. A second signal follows "cancelled"."""

    async def wait() -> None:
        # In the loop: up to 3.10, a signal is handled wherever it arrives, including this line.
        asyncio.get_running_loop().call_soon(say, "ready")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("cancelled")
            raise

    async def main() -> None:
        await app.door.prepare()
        await leave(app)
        if app.door.db is None:
            await wait()
            return
        async with app.door.db:
            await wait()

    asyncio.run(main())


def exits_in_a_handler(app: App, leave: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    waits_for_a_signal(app, leave)


def stops_the_loop_in_a_handler(app: App, leave: Any) -> None:
    async def main() -> None:
        await app.door.prepare()
        await leave(app)
        loop.add_signal_handler(signal.SIGTERM, loop.stop)
        say("ready")

    loop = asyncio.new_event_loop()
    app.left.append(loop.create_task(main()))
    loop.run_forever()


def runs_twice(app: App, leave: Any) -> None:
    """Run two event loops, one after the other, over the same engines."""

    async def main() -> None:
        await app.door.add()
        say("counts", await app.door.count())
        await leave(app)

    asyncio.run(app.door.prepare())
    asyncio.run(main())
    if app.left and not isinstance(app.left[0], asyncio.Task):
        app.left.clear()  # open objects disappear with their last reference
    asyncio.run(main())
    say("ready")


def runs_in_two_threads(app: App, leave: Any) -> None:
    """Run two event loops concurrently over the same engines."""
    counter = text("UPDATE t SET n = n + 1")

    async def main() -> None:
        for _ in range(UPDATES):
            async with app.door.write() as writer:
                await writer.execute(counter)
            await app.door.count()

    async def total() -> Any:
        async with app.door.read() as reader:
            return await reader.scalar(text("SELECT n FROM t"))

    asyncio.run(app.door.prepare())
    other = threading.Thread(target=lambda: asyncio.run(main()))
    other.start()
    asyncio.run(main())
    other.join()
    say("counts", asyncio.run(total()))
    say("ready")


def run(program: str, left: str, door: str, path: str) -> None:
    globals()[program](App(door, path), globals()[left])


if __name__ == "__main__":
    run(*sys.argv[1:])
