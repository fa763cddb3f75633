"""Programs that run on a mounted file system: ``python -m tests.mount_programs STEP PATH …``.

Each step prints its results for a test, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.system.mounts import find_mount
from tests.helpers import files_beside
from tests.system.test_mounts import mount_id

POOLS = {"swap-in": SQLitePool, "writer": WriterPool, "reader": ReaderPool}
DOORS = ["facade", *POOLS]
CREATE = "CREATE TABLE IF NOT EXISTS t (n INTEGER)"


async def use(door: str, path: str, *sql: str, query: str = "", **options: Any) -> Any:
    """Execute through a door; return the last statement's result, or the error message."""
    url = f"sqlite+aiosqlite:///{path}{query}"
    try:
        if door == "facade":
            async with SQLiteDatabase(url, **options) as db, db.write() as session:
                return [(await session.execute(text(line))) for line in sql][-1].scalar()
        engine = create_async_engine(url, poolclass=POOLS[door], **options)
        try:
            async with engine.begin() as connection:
                return [(await connection.execute(text(line))) for line in sql][-1].scalar()
        finally:
            await engine.dispose()
    except DBAPIError as error:
        return f"{type(error.orig).__name__}: {error.orig}"


class Messages(logging.Handler):
    """The messages of the logger."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        logging.getLogger("sa_sqlite_pool").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def open_by_every_door(path: str, journal_mode: str) -> dict[str, Any]:
    """Return each door's journal mode, the files that exist afterwards, and the log messages."""
    messages = Messages()
    pragmas = {"journal_mode": journal_mode}
    answers = {
        door: asyncio.run(use(door, path, "PRAGMA journal_mode", pragmas=pragmas)) for door in DOORS
    }
    return {"answers": answers, "files": sorted(files_beside(Path(path))), "said": messages.texts}


def write_and_read(path: str, journal_mode: str) -> list[Any]:
    """Write a row, count rows in another process, and return that with the log messages."""
    messages = Messages()
    write = use(
        *("facade", path, CREATE, "INSERT INTO t VALUES (1)", "PRAGMA journal_mode"),
        pragmas={"journal_mode": journal_mode},
    )
    return [asyncio.run(write), count(path), messages.texts]


def leave_wal(path: str, source: str) -> list[Any]:
    """Open a database with a log, created where WAL works, where it does not, in TRUNCATE mode."""
    make_log(source)
    try:
        with closing(sqlite3.connect(path)) as plain:
            plain.execute("SELECT * FROM t")
        by_sqlite = "works"
    except sqlite3.Error as error:
        by_sqlite = str(error)
    truncate = {"journal_mode": "TRUNCATE"}
    mode = asyncio.run(use("facade", path, "PRAGMA journal_mode", pragmas=truncate))
    return [by_sqlite, mode, count(path), sorted(files_beside(Path(path)))]


def make_log(path: str) -> None:
    """Leave a log behind, as after a crash: ten rows are only in the log."""
    program = (
        "import sqlite3, os, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA journal_mode = WAL'); c.execute('CREATE TABLE t (n)');"
        "[c.execute('INSERT INTO t VALUES (1)') for _ in range(10)]; os._exit(0)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program, path]) == 0


def count(path: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def stop(server: int) -> None:
    """Stop the server with all its threads: a request that one of them has read never ends."""
    os.kill(server, signal.SIGSTOP)
    threads = Path(f"/proc/{server}/task")
    while any(
        (one / "stat").read_text().rpartition(")")[2].split()[0] != "T" for one in threads.iterdir()
    ):
        os.sched_yield()


def until_nobody_looks() -> None:
    """Wait for the threads that examine the site of a database to end."""
    for thread in threading.enumerate():
        if thread.name == "sa_sqlite_pool-site":
            thread.join()


def stopped_server(path: str) -> list[Any]:
    """Stop the program that serves the file, and let it continue later."""
    asyncio.run(use("facade", path, CREATE, "SELECT 1", pragmas={"journal_mode": "TRUNCATE"}))
    server = next(
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and (process / "comm").read_text() == "bindfs\n"
    )
    longest = 0.0

    async def look() -> None:
        """Measure how long the loop is blocked."""
        nonlocal longest
        before = time.monotonic()
        while True:
            await asyncio.sleep(0)
            before, since = time.monotonic(), before
            longest = max(longest, before - since)

    async def main() -> list[Any]:
        looking = asyncio.create_task(look())
        timeouts: dict[str, Any] = {"write_timeout": 0.1, "read_timeout": 0.1}
        answers = await asyncio.gather(
            *(
                use(door, path, "SELECT 1", pragmas={"journal_mode": mode}, **timeouts)
                for door in DOORS
                for mode in ("TRUNCATE", "WAL")
            )
        )
        stood_still = longest
        late = asyncio.create_task(
            use("swap-in", path, "SELECT count(*) FROM t", pragmas={"journal_mode": "TRUNCATE"})
        )
        await asyncio.sleep(0)
        os.kill(server, signal.SIGCONT)
        answers.append(await late)
        await asyncio.to_thread(until_nobody_looks)
        stop(server)  # it stays stopped now, which must not prevent this process from exiting
        answers.append(await use("swap-in", path, "SELECT 1", **timeouts))
        looking.cancel()
        return [answers, stood_still]

    stop(server)
    return asyncio.run(main())


def open_copy(path: str) -> list[Any]:
    """Open a file on a read-only mount: as usual, and as a copy that is never written to."""
    messages = Messages()
    query = "?uri=true&mode=ro&immutable=1"
    uri = f"file:{path}"
    answers = [asyncio.run(use(door, path, "SELECT count(*) FROM t")) for door in DOORS]
    answers += [
        asyncio.run(use(door, uri, "SELECT count(*) FROM t", query=query))
        for door in ("swap-in", "reader")
    ]
    return [answers, messages.texts]


def mounts_of(*paths: str) -> list[Any]:
    """Return, for each path, whether the kernel and this package agree, and the type."""
    found = [(path, find_mount(path)) for path in paths]
    return [[mount and mount.id == mount_id(Path(p)), mount and mount.type] for p, mount in found]


STEPS: dict[str, Callable[..., Any]] = {
    step.__name__: step
    for step in (
        open_by_every_door,
        write_and_read,
        leave_wal,
        stopped_server,
        open_copy,
        mounts_of,
    )
}

if __name__ == "__main__":
    answer = STEPS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(answer))  # noqa: T201 - what the tests read
