"""A backup whose process is killed or forks, or whose disk is full."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool import SQLiteDatabase
from tests.backup import ledger
from tests.backup.ledger import entries, run_program
from tests.helpers import files_beside

KILLED = """
import asyncio, os, signal, sys
from sa_sqlite_pool import SQLiteDatabase

def progress(copied, total):
    if copied >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with SQLiteDatabase(sys.argv[1]) as db:
        await db.backup(sys.argv[2], progress=progress, pages_per_step=20)

asyncio.run(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL here")
async def test_a_kill(path: Path, copy: Path) -> None:
    """An older copy stays unchanged, beside an unfinished file, which the next backup removes."""
    async with SQLiteDatabase(path) as db:
        await ledger.create(db)
        await db.backup(copy)
        older = copy.read_bytes()
        await ledger.post(db, random.Random(1))
    for pages in (0, 100, 500):
        assert run_program(KILLED, path, copy, pages).returncode == -9
        assert files_beside(copy) == {"copy.db", "copy.db.unfinished"}
        assert copy.read_bytes() == older
    async with SQLiteDatabase(path) as db:
        await db.backup(copy)
    assert files_beside(copy) == {"copy.db"}
    assert entries(copy) == 1


FORKED = """
import asyncio, os, sys, threading, time, warnings
import sqlalchemy.exc
from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.backup import page_copy
from tests.fork_programs import ParentLoop, ended, fork

warnings.simplefilter("ignore")
path, copy = sys.argv[1:]
db = SQLiteDatabase(path)
inside, leave, began = threading.Event(), threading.Event(), []
original = page_copy._copy

def held(source, target, pages, worker, step):
    def each(copied, total):
        inside.set()
        while not leave.wait(0.001):
            worker.between_steps()
        step(copied, total)
    original(source, target, pages, worker, each)

page_copy._copy = held

async def use():
    async with db.read() as session:
        await session.connection()

def child():
    try:
        asyncio.run(use())
    except sqlalchemy.exc.OperationalError as error:
        print("refused", "was forked while a connection" in str(error), flush=True)
    closing = time.monotonic()
    asyncio.run(db.close(8))
    print("closed", time.monotonic() - closing < 4, flush=True)

async def begin():
    await db.open()
    task = asyncio.ensure_future(db.backup(copy))
    while not inside.is_set():
        await asyncio.sleep(0)
    return task

async def end(task):
    leave.set()
    await task
    await db.close()

loop = ParentLoop()
task = loop.run_until_complete(begin())
began = time.monotonic()
pid = fork(child)
quick = time.monotonic() - began < 0.9
print("exit", ended(pid), flush=True)
print("quick", quick, flush=True)
print("there", os.path.exists(copy + ".unfinished"), flush=True)
loop.run_until_complete(end(task))
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
async def test_a_fork(path: Path, copy: Path) -> None:
    """The fork waits for the end of one step only; the child is refused the file, which is in use,
    and leaves everything to its parent, whose backup continues.
    """
    async with SQLiteDatabase(path) as db:
        await ledger.create(db)
    done = run_program(FORKED, path, copy)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "refused True",
        "closed True",
        "exit 0",
        "quick True",
        "there True",
    ]
    assert files_beside(copy) == {"copy.db"}
    assert entries(copy) == 0


FULL_DISK = """
import asyncio, os, resource, sys
import sqlalchemy.exc
from sa_sqlite_pool import SQLiteDatabase
from tests.backup import ledger

async def main():
    async with SQLiteDatabase(sys.argv[1]) as db:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, resource.RLIM_INFINITY))
        try:
            await db.backup(sys.argv[2])
        except sqlalchemy.exc.OperationalError as error:
            print(type(error.orig).__name__, error.orig, "|", error.detail[0])
        print(sorted(os.listdir(os.path.dirname(sys.argv[2]))))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await db.backup(sys.argv[2])

asyncio.run(main())
"""


async def test_no_room(path: Path, copy: Path) -> None:
    """The error has no other effect, and with free space again, a backup works."""
    pytest.importorskip("resource", reason="there are no limits for files here")
    async with SQLiteDatabase(path) as db:
        await ledger.create(db, 200)
        await db.backup(copy)
        older = copy.read_bytes()
        await ledger.post(db, random.Random(1))
        async with db.write() as session:
            await session.execute(text("UPDATE accounts SET ballast = zeroblob(40000)"))
    program = FULL_DISK.replace(
        "print(sorted",
        f"assert open(sys.argv[2], 'rb').read() == "
        f"open({str(copy.parent.parent / 'older')!r}, 'rb').read()\n"
        "        print(sorted",
    )
    (copy.parent.parent / "older").write_bytes(older)
    done = run_program(program, path, copy)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "OperationalError disk I/O error | no partial copy is left, and an older one is as it was",
        "['copy.db']",
    ]
    assert entries(copy) == 1


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    """Provide a file system of 1 MiB."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(directory)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root mounts file systems")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


async def test_a_disk_that_is_full(db: SQLiteDatabase, tiny: Path) -> None:
    """SQLite's own message reaches the caller."""
    with pytest.raises(exc.OperationalError, match="database or disk is full"):
        await db.backup(tiny / "copy.db")
    assert files_beside(tiny / "copy.db") == set()
