"""Programs that fork, of databases in memory, and of those that are closed; see fork_programs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from sa_sqlite_pool import SQLiteDatabase
from tests.fork_programs import Parent, ended, fork, is_refused, main
from tests.programs import COUNT, CREATE, INSERT, say


def in_memory(parent: Parent) -> None:
    db = SQLiteDatabase(":memory:")
    database = str(db.url.database)

    async def fill() -> None:
        await db.open()
        async with db.write() as session:
            await session.execute(CREATE)
            await session.execute(INSERT)

    async def count() -> int:
        async with db.read() as session:
            return int((await session.scalars(COUNT)).one())

    parent.run(fill())
    say("exit", ended(fork(lambda: say("child counts", asyncio.run(count())))))
    say("parent counts", parent.run(count()))
    parent.run(db.close())
    say("directory", os.path.exists(os.path.dirname(database)))


def in_memory_and_closed(parent: Parent) -> None:
    """A database in memory was used and closed before; each process has one of its own then."""
    db = SQLiteDatabase(":memory:")
    directory = os.path.dirname(str(db.url.database))

    async def fill_and_count() -> int:
        async with db:
            async with db.write() as session:
                await session.execute(CREATE)
                await session.execute(INSERT)
            async with db.read() as session:
                return int((await session.scalars(COUNT)).one())

    parent.run(fill_and_count())
    say("exit", ended(fork(lambda: say("child counts", asyncio.run(fill_and_count())))))
    say("directory", os.path.exists(directory))
    say("parent counts", parent.run(fill_and_count()))


def closing(parent: Parent) -> None:
    """A thread closes a database, and waits for a task to end, at the moment of the fork."""
    db = SQLiteDatabase(parent.path)
    waits: SimpleQueue[Callable[[], object]] = SimpleQueue()

    async def close() -> None:
        async with db:
            async with db.read() as session:
                await session.scalars(COUNT)
                closing = asyncio.ensure_future(db.close(60))
                while "closing" not in repr(db):
                    await asyncio.sleep(0)
                go_on = asyncio.Event()
                set_it = partial(asyncio.get_running_loop().call_soon_threadsafe, go_on.set)
                waits.put(set_it)
                await go_on.wait()
            await closing

    async def child() -> None:
        await db.close()
        say("child closed", "closed" in repr(db))
        say("refused", await is_refused(db.open()))
        os._exit(0)  # without the end of its parent's tasks

    thread = threading.Thread(target=lambda: asyncio.run(close()))
    thread.start()
    let_it_go_on = waits.get()
    say("exit", ended(fork(lambda: asyncio.run(child()))))
    let_it_go_on()
    thread.join()


if __name__ == "__main__":
    main(globals(), *sys.argv[1:])
